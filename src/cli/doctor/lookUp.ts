/**
 * Looks a machine up. It opens files and devices, and changes nothing.
 */
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { closeSync, constants, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs"
import { release } from "node:os"
import { gunzipSync } from "node:zlib"
import { Capability } from "../../layers/kvm/abi/Capability.ts"
import { API_VERSION, KvmIoctl } from "../../layers/kvm/abi/KvmIoctl.ts"
import { loadLibc } from "../../layers/native/Libc.ts"
import * as Capabilities from "./capabilities.ts"
import type { AcrnFacts, Availability, DeviceFact, KvmFacts, KvmInterface, MachineFacts, User } from "./Facts.ts"
import { parseAccounts, parseFeatures, parseOptions } from "./parse.ts"
import { tryAll } from "./tryGuests.ts"

const orUndefined = <A>(look: () => A): A | undefined => {
  try {
    return look()
  } catch {
    return undefined
  }
}

const readText = (path: string): string | undefined => orUndefined(() => readFileSync(path, "utf8"))

const accountsIn = (path: string) => parseAccounts(readText(path) ?? "")

const readOptions = (kernel: string): ReadonlyMap<string, string> | undefined => {
  const text = orUndefined(() => gunzipSync(readFileSync("/proc/config.gz")).toString()) ??
    readText(`/boot/config-${kernel}`)
  return text === undefined ? undefined : parseOptions(text)
}

const readFeatures = () => parseFeatures(readText("/proc/cpuinfo") ?? "")

const HYPERVISOR_LEAF = 0x4000_0000

/** The twelve letters by which a hypervisor names itself to CPUID. */
const readSignature = (): string | undefined =>
  orUndefined(() => {
    const fd = openSync("/dev/cpu/0/cpuid", "r")
    try {
      const registers = Buffer.alloc(16)
      readSync(fd, registers, 0, 16, HYPERVISOR_LEAF)
      return registers.toString("latin1", 4, 16)
    } finally {
      closeSync(fd)
    }
  })

const findHypervisor = (): string | undefined => {
  const features = readFeatures()
  if (features !== undefined && !features.has("hypervisor")) return "none"
  if (readSignature() === "ACRNACRNACRN") return "acrn"
  const detected = orUndefined(() =>
    execFileSync("systemd-detect-virt", ["--vm"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  )
  return detected === "" ? undefined : detected
}

const tryKoffi = async (): Promise<Availability> => {
  try {
    const { default: koffi } = await import("koffi")
    return { _tag: "Usable", detail: `version ${koffi.version}` }
  } catch (cause) {
    return { _tag: "Unusable", problem: String(cause).split("\n", 1)[0]! }
  }
}

const findUser = (): User => {
  const { getgid, getgroups, getuid } = process
  if (getuid === undefined || getgid === undefined || getgroups === undefined) {
    return { name: "this user", groups: [], listedGroups: [] }
  }
  const [users, groups] = [accountsIn("/etc/passwd"), accountsIn("/etc/group")]
  const name = users.nameOf(getuid())
  return {
    name: name === String(getuid()) ? `user ${name}` : name,
    groups: [...new Set([getgid(), ...getgroups()])].map(groups.nameOf),
    listedGroups: groups.listing(name)
  }
}

const tryDevice = (path: string): DeviceFact => {
  try {
    closeSync(openSync(path, constants.O_RDWR))
    return { _tag: "Opened" }
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
    const status = code === "ENOENT" ? undefined : orUndefined(() => statSync(path))
    if (status === undefined) return { _tag: "Absent" }
    const owner = {
      user: accountsIn("/etc/passwd").nameOf(status.uid),
      group: accountsIn("/etc/group").nameOf(status.gid),
      mode: status.mode & 0o7777
    }
    return { _tag: "Refused", code, owner }
  }
}

/** What does not depend on any one hypervisor. */
export const machine: Effect.Effect<MachineFacts> = Effect.promise(async () => {
  const kernel = release()
  return {
    platform: `${process.platform} ${process.arch}`,
    kernel,
    hypervisor: findHypervisor(),
    options: readOptions(kernel),
    koffi: await tryKoffi(),
    user: findUser()
  }
})

export const acrn = (facts: MachineFacts, path = "/dev/acrn_hsm"): Effect.Effect<AcrnFacts> =>
  Effect.sync(() => ({ ...facts, path, device: tryDevice(path) }))

const MODULES = ["kvm", "kvm_intel", "kvm_amd", "kvm_pvm"]

const askInterface = async (path: string): Promise<KvmInterface | undefined> => {
  const libc = await loadLibc()
  const fd = libc.open(path)
  if (fd < 0) return undefined
  try {
    const version = libc.ioctl(fd, KvmIoctl.GET_API_VERSION, 0)
    // The numbers of other files' ioctls mean other things.
    const names = version === API_VERSION ? Capabilities.names : []
    const ask = (name: (typeof names)[number]) =>
      Math.max(0, libc.ioctl(fd, KvmIoctl.CHECK_EXTENSION, Capability[name]))
    return { version, extensions: new Map(names.map((name) => [name, ask(name)])) }
  } finally {
    libc.close(fd)
  }
}

export const kvm = (facts: MachineFacts, path = "/dev/kvm"): Effect.Effect<KvmFacts> =>
  Effect.gen(function*() {
    const device = tryDevice(path)
    const canAsk = device._tag === "Opened" && facts.koffi._tag === "Usable" && facts.platform === "linux x64"
    const asked = canAsk ? yield* Effect.promise(() => askInterface(path)) : undefined
    return {
      ...facts,
      path,
      device,
      features: readFeatures(),
      modules: new Set(MODULES.filter((name) => existsSync(`/sys/module/${name}`))),
      isRegistered: /^\s*\d+ kvm$/m.test(readText("/proc/misc") ?? ""),
      interface: asked,
      trials: asked?.version === API_VERSION ? yield* tryAll(path) : undefined
    }
  })
