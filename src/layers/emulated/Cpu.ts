/**
 * One 32-bit x86 CPU with its RAM, in this thread: the wasm core of v86 without any of v86's devices.
 *
 * The CPU runs in slices of about a millisecond. Within a slice it calls the device handlers directly; when one answers
 * with a promise the CPU waits inside the instruction, and everything else in the thread goes on (JSPI).
 *
 * The core has two 8259 interrupt controllers of its own, and executes code from RAM only. It has no 64-bit mode, no
 * single-step, one CPU, and RAM of less than 2 GiB in one block from guest address 0. Given the same time, random words
 * and answers, a run is the same to the instruction.
 *
 * @since 0.1.0
 */
import { PAGE_BYTES } from "../../domain/Limits.ts"
import type { VcpuRegisters } from "../../domain/VcpuRegisters.ts"
import { Core } from "./Core.ts"
import { CpuError, type CpuErrorReason } from "./CpuError.ts"
import type { CpuModule } from "./CpuModule.ts"
import type { CpuOptions, SliceEnd } from "./CpuOptions.ts"
import { readRegisters, writeRegisters } from "./CpuRegisters.ts"
import type { GuestRam } from "./GuestRam.ts"

export type { CpuOptions, SliceEnd } from "./CpuOptions.ts"

/**
 * The most RAM a CPU can have, in bytes (inclusive): the core's allocator stops below 2 GiB.
 *
 * @category constants
 * @since 0.1.0
 */
export const MAX_MEMORY_BYTES = 2 ** 31 - 2 ** 16

/**
 * - `Stopped`: between slices; the state in which registers can be read and set.
 * - `Running`: a slice runs, or waits within an access.
 * - `Failed`: it can only be looked at and disposed of.
 *
 * @category models
 * @since 0.1.0
 */
type CpuStatus = "Stopped" | "Running" | "Failed" | "Disposed"

/**
 * A CPU and its RAM.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cpu {
  readonly memory: GuestRam
  readonly status: CpuStatus
  /**
   * Runs one slice. Rejects with a `CpuError`: `Shutdown` after a triple fault or anything else the core gives up on,
   * `HandlerFailed` when a callback threw, `NotStopped` while another slice runs, `Disposed`.
   */
  readonly run: () => Promise<SliceEnd>
  /**
   * Ends the running slice at the next block boundary that the core looks at: at once after a port access, and after at
   * most 200,000 instructions otherwise. Does nothing when no slice runs.
   */
  readonly requestStop: () => void
  /**
   * Sets an interrupt line, 0 to 15; others are ignored. May be called at any time, also from a handler: the core hears
   * of it at its next safe point, which is right after the instruction for a port access, at the latest in the timer
   * hook.
   */
  readonly setInterruptLine: (line: number, high: boolean) => void
  /**
   * Sets every register, as ACRN does. Throws a `CpuError`: `NotStopped`, or `BadRegister` with nothing changed.
   */
  readonly setRegisters: (registers: VcpuRegisters) => void
  /** Every register. Throws a `CpuError` of reason `NotStopped` while a slice runs. */
  readonly getRegisters: () => VcpuRegisters
  /**
   * Puts the CPU and its interrupt controllers into their state after power-on; RAM and the levels of lines stay.
   * Throws a `CpuError` of reason `NotStopped` while a slice runs.
   */
  readonly reset: () => void
  /** Guest instructions so far; exact between slices, and without the running block's within one. Never falls. */
  readonly instructionCount: number
  /** How often the CPU waited for a promise. */
  readonly suspensions: number
  /**
   * Lets go of all memory. A slice that runs or waits is rejected with `Disposed` at once, and the guest stops as soon
   * as it comes out of its wait. Calling it again does nothing.
   */
  readonly dispose: () => void
}

const error = (reason: CpuErrorReason): CpuError => new CpuError({ reason })

const checkMemorySize = (bytes: number): void => {
  if (!(Number.isInteger(bytes) && bytes > 0 && bytes % PAGE_BYTES === 0)) {
    throw error({ _tag: "MemorySize", bytes, problem: "it is no positive multiple of 4096" })
  }
  if (bytes > MAX_MEMORY_BYTES) {
    throw error({ _tag: "MemorySize", bytes, problem: `a 32-bit emulated CPU has at most ${MAX_MEMORY_BYTES}` })
  }
}

/**
 * Makes a CPU, reset and with zeroed RAM; takes about 20 ms. Throws a `CpuError` of reason `MemorySize` when the RAM
 * asked for is not to be had.
 *
 * **Example** (A guest that writes to a port)
 *
 * ```ts
 * const cpu = Cpu.make(await CpuModule.compile(bytes), { memoryBytes: 1 << 20, ...devicesAndTime })
 * cpu.memory.write(0x1000, Uint8Array.of(0xe6, 0xf4, 0xf4)) // out 0xf4, al; hlt
 * cpu.setRegisters(VcpuRegisters.flat32({ entry: 0x1000 }))
 * await cpu.run() // { _tag: "Dead" }: halted, and interrupts are off
 * cpu.dispose()
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (module: CpuModule, options: CpuOptions): Cpu => {
  checkMemorySize(options.memoryBytes)
  // The only reference to the instance, so that letting go of it frees its memory.
  let core: Core | undefined = new Core(module, options)
  const { ram } = core
  let status: CpuStatus = "Stopped"
  let failure: CpuError | undefined
  let abandonSlice: (reason: CpuError) => void = () => undefined
  let finalCounts = { instructions: 0, suspensions: 0 }

  const stopped = (operation: string): Core => {
    if (core === undefined) {
      throw error({ _tag: "Disposed" })
    }
    if (status === "Running") {
      throw error({ _tag: "NotStopped", operation })
    }
    return core
  }
  const healthy = (operation: string): Core => {
    const found = stopped(operation)
    if (failure !== undefined) {
      throw failure
    }
    return found
  }

  return {
    memory: ram,
    get status() {
      return status
    },
    run: () =>
      new Promise((resolve, reject) => {
        const running = healthy("run")
        status = "Running"
        abandonSlice = reject
        running.slice().then(
          (end) => {
            status = "Stopped"
            resolve(end)
          },
          (cause: CpuError) => {
            if (core !== undefined) {
              status = "Failed"
              failure = cause
            }
            reject(cause)
          }
        )
      }),
    requestStop: () => core?.stop(),
    setInterruptLine: (line, high) => core?.setLine(line, high),
    setRegisters: (registers) => {
      const found = healthy("setRegisters")
      writeRegisters(
        found.memory,
        registers,
        (address) => new DataView(found.ram.read(address, 8).buffer).getBigUint64(0, true)
      )
      found.registersWritten()
    },
    getRegisters: () => {
      const found = stopped("getRegisters")
      return readRegisters(found.memory, found.eflags())
    },
    reset: () => healthy("reset").reset(),
    get instructionCount() {
      return core?.counter.total ?? finalCounts.instructions
    },
    get suspensions() {
      return core?.suspensions ?? finalCounts.suspensions
    },
    dispose: () => {
      if (core === undefined) {
        return
      }
      const disposed = error({ _tag: "Disposed" })
      finalCounts = { instructions: core.counter.total, suspensions: core.suspensions }
      core.end(disposed)
      core = undefined
      status = "Disposed"
      abandonSlice(disposed)
    }
  }
}
