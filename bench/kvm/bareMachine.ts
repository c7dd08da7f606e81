/**
 * The peer in C: compiled here, run in this process. So a sample of ours and one of C's stand beside each other on one
 * thread, in the same seconds.
 */
import { spawnSync } from "node:child_process"
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Measurement, Sampler, Skipped } from "../harness.ts"
import { entries, GUEST_MEMORY_BYTES, type LoopName } from "./guest.ts"

const DEVICE = "/dev/kvm"
const SOURCE = join(import.meta.dirname, "machine.c")

/** A guest and where it goes. */
export interface Guest {
  readonly image: Uint8Array
  readonly address: number
  readonly entry: number
  readonly memoryBytes: number
}

/** A VM of the C program's. */
export interface BareMachine {
  /** Processor time of this thread, of one loop of the guest of `guest.ts`. */
  readonly sampler: (loop: LoopName) => Sampler
  /** What the guest of `timedGuest.ts` told. */
  readonly timed: (bytes: number) => Uint8Array
  /** The kernel counts writes to the port from now on; no exit comes of them. */
  readonly attachDoorbell: (port: number) => void
  readonly close: () => void
}

export interface BareKvm {
  /** Processor time of this thread, with what guests take on it, in nanoseconds. */
  readonly threadNanos: () => number
  readonly open: (guest: Guest) => BareMachine
  /** Time on the wall for VMs of 1 MiB made and unmade. */
  readonly lives: Sampler
}

type Machine = object | bigint

type Koffi = typeof import("koffi").default

const load = (koffi: Koffi, file: string): BareKvm => {
  const library = koffi.load(file)
  const systemOpen: (device: string) => number = library.func("int system_open(const char *)")
  const threadNanos: () => number = library.func("double thread_nanos()")
  const open: (image: Uint8Array, bytes: number, address: number, entry: number, ram: number) => Machine | null =
    library.func("void *machine_open(const void *, uint32_t, uint32_t, uint32_t, uint32_t)")
  const close: (machine: Machine) => void = library.func("void machine_close(void *)")
  const doorbell: (machine: Machine, port: number) => number = library.func("int machine_doorbell(void *, uint16_t)")
  const run: (machine: Machine, loop: number, rounds: number) => number = library.func(
    "double machine_run(void *, uint32_t, uint32_t)"
  )
  const timed: (machine: Machine, told: Uint8Array, bytes: number) => number = library.func(
    "int machine_timed(void *, void *, uint32_t)"
  )
  const lives: (count: number, ram: number) => number = library.func("double machine_lives(uint32_t, uint32_t)")

  const checked = (result: number, what: string): number => {
    if (result < 0) throw new Error(`the bare machine's ${what} failed: ${result}, errno ${koffi.errno()}`)
    return result
  }
  checked(systemOpen(DEVICE), "opening")
  return {
    threadNanos,
    lives: (iterations) => checked(lives(iterations, GUEST_MEMORY_BYTES), "life"),
    open: ({ address, entry, image, memoryBytes }) => {
      const machine = open(image, image.length, address, entry, memoryBytes)
      if (machine === null) throw new Error(`no bare machine: errno ${koffi.errno()}`)
      return {
        sampler: (loop) => (iterations) => checked(run(machine, entries[loop], iterations), "run"),
        timed: (bytes) => {
          const told = new Uint8Array(bytes)
          checked(timed(machine, told, bytes), "run")
          return told
        },
        attachDoorbell: (port) => {
          checked(doorbell(machine, port), "doorbell")
        },
        close: () => {
          close(machine)
        }
      }
    }
  }
}

/** What opens a library and so KVM, or why neither can be. */
const findKoffi = async (): Promise<Koffi | string> => {
  try {
    accessSync(DEVICE, constants.R_OK | constants.W_OK)
    return (await import("koffi")).default
  } catch (problem) {
    return `KVM cannot be used: ${String(problem)}`
  }
}

/** Measures where KVM can be used and the peer be compiled, and tells why not elsewhere. */
export const whereKvm = async (
  measure: (bare: BareKvm) => Promise<Measurement | Skipped>
): Promise<Measurement | Skipped> => {
  const koffi = await findKoffi()
  if (typeof koffi === "string") return { skipped: koffi }
  const folder = mkdtempSync(join(tmpdir(), "upcall-bench-"))
  try {
    const file = join(folder, "machine.so")
    const compiled = spawnSync("cc", ["-O2", "-shared", "-fPIC", "-o", file, SOURCE], { encoding: "utf8" })
    if (compiled.status !== 0) return { skipped: `no C compiler made the peer: ${compiled.error ?? compiled.stderr}` }
    return await measure(load(koffi, file))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
