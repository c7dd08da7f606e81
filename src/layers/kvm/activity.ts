/**
 * What a vCPU is doing, as far as whoever runs it knows.
 */
import { MpStateCode } from "./abi/VcpuEvents.ts"
import type { VcpuFile } from "./VcpuFile.ts"
import { getMpState, isInterruptible } from "./vcpuState.ts"

/**
 * - `Absent`: not started.
 * - `Running`: it has instructions to execute, or waits for an answer.
 * - `Idle`: it halts until an interrupt comes.
 * - `Dead`: it halts, and takes no interrupts.
 * - `Stopped`: it halted where there is no interrupt controller; entered again it would go on.
 * - `Unborn`: it waits for another vCPU to start it.
 */
export type Activity = "Absent" | "Running" | "Idle" | "Dead" | "Stopped" | "Unborn"

/** Whether nothing but another vCPU can make it go on. */
export const isOver = (activity: Activity): boolean => activity !== "Running" && activity !== "Idle"

/** What a vCPU does that was just interrupted. */
export const activityOf = (file: VcpuFile): Activity => {
  switch (getMpState(file)) {
    case MpStateCode.HALTED:
      return isInterruptible(file) ? "Idle" : "Dead"
    case MpStateCode.UNINITIALIZED:
    case MpStateCode.INIT_RECEIVED:
      return "Unborn"
    default:
      return "Running"
  }
}
