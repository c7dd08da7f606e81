/**
 * The guest of `timedGuest.ts` under QEMU with KVM: QEMU's own PC without anything that is not asked for, and Bochs'
 * debug console, whose read is the cheapest that QEMU's process answers. SeaBIOS starts the guest.
 *
 * QEMU stands still (SIGSTOP) while it is not asked for samples, so that samples of ours can come in between.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { cyclesOf, image, SAMPLE_BYTES, SAMPLE_PORT } from "./timedGuest.ts"

const PROGRAM = "qemu-system-x86_64"
const POLL_MS = 10
const BOOT_MS = 60_000

/** QEMU with the guest in it. */
export interface QemuGuest {
  readonly version: string
  /** The next samples, in cycles a read. */
  readonly samples: (count: number) => Promise<ReadonlyArray<number>>
  readonly close: () => void
}

const MACHINE = "-nodefaults -no-user-config -display none -machine pc -accel kvm -cpu qemu64 -m 16".split(" ")

const commandLine = (kernel: string, told: string): ReadonlyArray<string> => [
  ...MACHINE,
  "-kernel",
  kernel,
  "-chardev",
  `file,id=told,path=${told}`,
  "-device",
  `isa-debugcon,iobase=${SAMPLE_PORT},chardev=told`
]

class Running implements QemuGuest {
  readonly version: string
  private readonly child: ChildProcess
  private readonly folder: string
  private readonly told: string
  private readonly problems: number

  constructor(version: string) {
    this.version = version
    this.folder = mkdtempSync(join(tmpdir(), "upcall-bench-"))
    this.told = join(this.folder, "told")
    const kernel = join(this.folder, "kernel")
    writeFileSync(kernel, image)
    writeFileSync(this.told, "")
    this.problems = openSync(join(this.folder, "problems"), "w")
    this.child = spawn(PROGRAM, commandLine(kernel, this.told), { stdio: ["ignore", "ignore", this.problems] })
  }

  async samples(count: number): Promise<ReadonlyArray<number>> {
    this.child.kill("SIGCONT")
    // The one that is under way was measured while QEMU stood still.
    const first = Math.floor(readFileSync(this.told).length / SAMPLE_BYTES) + 2
    const end = (first + count) * SAMPLE_BYTES
    const deadline = performance.now() + BOOT_MS
    let told = readFileSync(this.told)
    while (told.length < end) {
      if (this.child.exitCode !== null || performance.now() > deadline) throw new Error(this.whyNot())
      await sleep(POLL_MS)
      told = readFileSync(this.told)
    }
    this.child.kill("SIGSTOP")
    return cyclesOf(told.subarray(first * SAMPLE_BYTES, end))
  }

  close(): void {
    this.child.kill("SIGKILL")
    closeSync(this.problems)
    rmSync(this.folder, { recursive: true })
  }

  private whyNot(): string {
    return `QEMU ran no guest: ${readFileSync(join(this.folder, "problems"), "utf8")}`
  }
}

/** Starts QEMU, or tells why there is none. */
export const startQemu = (): QemuGuest | string => {
  const asked = spawnSync(PROGRAM, ["--version"], { encoding: "utf8" })
  if (asked.status !== 0) return `${PROGRAM} does not run (Debian has it in qemu-system-x86): ${String(asked.error)}`
  return new Running(/version (\S+)/.exec(asked.stdout)?.[1] ?? "unknown")
}
