/** What this process holds of the system, as Linux tells it. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/** Numbers of things, by their names. */
export type Holdings = Readonly<Record<string, number>>

const SIGURG = 23

export const holdings = (): Holdings => ({
  ...openFiles(),
  threads: readdirSync("/proc/self/task").length,
  "mappings of vCPUs": linesOf("/proc/self/maps").filter((line) => line.includes("kvm-vcpu")).length,
  timers: linesOf("/proc/self/timers").filter((line) => line.startsWith("ID:")).length,
  "signal handlers": Number(BigInt(`0x${statusOf("SigCgt")}`) >> BigInt(SIGURG - 1) & 1n)
})

/** What there is more or less of than before. */
export const differences = (before: Holdings, after: Holdings): ReadonlyArray<string> =>
  [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((name) => {
    const difference = (after[name] ?? 0) - (before[name] ?? 0)
    return difference === 0 ? [] : [`${difference} ${name}`]
  })

/** Files by what they are, such as `anon_inode:kvm-vm`. */
const openFiles = (): Holdings => {
  const files: Record<string, number> = {}
  for (const fd of readdirSync("/proc/self/fd")) {
    const target = targetOf(fd)
    if (target !== undefined) files[target] = (files[target] ?? 0) + 1
  }
  return files
}

/** Without the number that each pipe and socket has; `undefined` for the folder that was just read. */
const targetOf = (fd: string): string | undefined => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).replace(/\[\d+\]$/, "")
  } catch {
    return undefined
  }
}

const linesOf = (path: string): ReadonlyArray<string> => readFileSync(path, "utf8").split("\n")

const statusOf = (field: string): string =>
  new RegExp(`^${field}:\\s*(\\w+)`, "m").exec(readFileSync("/proc/self/status", "utf8"))![1]!

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** KiB of memory once what is garbage was collected: JavaScript's own and its buffers', and all else that is mapped. */
export const memory = (): { readonly managed: number; readonly unmanaged: number } => {
  for (let times = 0; times < 3; times++) collect()
  const { external, heapTotal, heapUsed } = process.memoryUsage()
  return {
    managed: Math.round((heapUsed + external) / 1024),
    unmanaged: Number(statusOf("VmSize")) - Math.round((heapTotal + external) / 1024)
  }
}
