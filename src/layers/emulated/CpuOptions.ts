/**
 * What goes into a CPU, and what a slice of it comes to.
 *
 * @since 0.1.0
 */
import type { Devices } from "./DeviceAccess.ts"

/**
 * What a CPU is made of. No callback may throw.
 *
 * - `memoryBytes`: RAM, a positive multiple of 4096, at most `MAX_MEMORY_BYTES` of `Cpu.ts`.
 * - `now`: milliseconds since any moment, never falling, given the count of instructions so far: real time ignores it,
 *   and time that is a function of it makes a run reproducible. The guest's time-stamp counter and the length of a
 *   slice follow it. It is called in the middle of instructions and must be cheap.
 * - `random`: any 32-bit word, for RDRAND.
 * - `onTimers`: called every 100,003 instructions, at HLT, and when a CPU that halted is run again: the place to
 *   advance timers and to set interrupt lines. Its result is the milliseconds until the next timer.
 * - `jit`: whether hot code is compiled (default true). It changes speed, and where batches end.
 *
 * @category models
 * @since 0.1.0
 */
export interface CpuOptions extends Devices {
  readonly memoryBytes: number
  readonly now: (instructionCount: number) => number
  readonly random: () => number
  readonly onTimers: () => number
  readonly jit?: boolean | undefined
}

/**
 * How a slice ended.
 *
 * - `Preempted`: its time is over, or a stop was asked for; run again.
 * - `Halted`: the guest waits for an interrupt; `waitMs` is what `onTimers` returned last. Run again after that time,
 *   or when an interrupt line was set.
 * - `Dead`: the guest halted with interrupts off; nothing will wake it.
 *
 * @category models
 * @since 0.1.0
 */
export type SliceEnd =
  | { readonly _tag: "Preempted" }
  | { readonly _tag: "Halted"; readonly waitMs: number }
  | { readonly _tag: "Dead" }
