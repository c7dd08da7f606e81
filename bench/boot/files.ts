/**
 * The files of the boot figure: the Linux guest (`scripts/fetch-linux-guest.sh`), and for the peer a BIOS
 * (`bench/fetch-seabios.sh`).
 */
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")

/** What both boot: said once, so that it is the same. */
export const COMMAND_LINE = "console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on reboot=t panic=-1"
export const PROMPT = "upcall-linux: shell ready"
// V86 loads the initrd at 64 MiB, so it needs more than that.
export const MEMORY_BYTES = 128 << 20

export interface GuestFiles {
  readonly kernel: Uint8Array
  readonly initrd: Uint8Array
}

const guestFolders = [process.env["UPCALL_LINUX_GUEST"], join(root, ".cache/guest-linux")]

const guestFolder = (): string | undefined =>
  guestFolders.find((folder) =>
    folder !== undefined && ["vmlinuz", "initrd.cpio"].every((file) => existsSync(join(folder, file)))
  )

export const hasGuest = (): boolean => guestFolder() !== undefined

export const readGuest = (): GuestFiles => {
  const folder = guestFolder()!
  return { kernel: readFileSync(join(folder, "vmlinuz")), initrd: readFileSync(join(folder, "initrd.cpio")) }
}

const BIOS_FILES = ["bios.bin", "vgabios-stdvga.bin"] as const
const fetched = join(root, ".cache/seabios")
const biosFolders = [join(fetched, "usr/share/seabios"), "/usr/share/seabios"]

const biosFolder = (): string | undefined =>
  biosFolders.find((folder) => BIOS_FILES.every((file) => existsSync(join(folder, file))))

/** Gets the BIOS if it is not there; what went wrong, if something did. */
export const obtainBios = (): string | undefined => {
  if (biosFolder() !== undefined) return undefined
  const script = join(root, "bench/fetch-seabios.sh")
  const { error, stderr } = spawnSync("sh", [script, fetched], { encoding: "utf8" })
  return biosFolder() === undefined ? `no SeaBIOS: ${error?.message ?? stderr.trim()}` : undefined
}

export const readBios = (): { readonly bios: Uint8Array; readonly vgaBios: Uint8Array } => {
  const [bios, vgaBios] = BIOS_FILES.map((file) => readFileSync(join(biosFolder()!, file)))
  return { bios: bios!, vgaBios: vgaBios! }
}

/** What the child process of a boot prints. Seconds from the kernel's first instruction to the prompt. */
export interface Boot {
  readonly wallS: number
  readonly cpuS: number
  /** Of it, what the thread took that the guest runs on; the rest is compilers and the garbage collector. */
  readonly threadCpuS: number
}

/** Starts the clocks of a boot; the result stops them, prints a {@link Boot}, and ends the process. */
export const bootClock = (): () => never => {
  const wall = performance.now()
  const cpu = process.cpuUsage()
  const threadCpu = process.threadCpuUsage()
  return () => {
    const seconds = ({ system, user }: NodeJS.CpuUsage) => (system + user) / 1e6
    const boot: Boot = {
      wallS: (performance.now() - wall) / 1e3,
      cpuS: seconds(process.cpuUsage(cpu)),
      threadCpuS: seconds(process.threadCpuUsage(threadCpu))
    }
    process.stdout.write(JSON.stringify(boot))
    return process.exit(0)
  }
}
