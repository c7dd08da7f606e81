/**
 * Exits after which a VM cannot go on, as reasons with the vCPU's registers.
 */
import * as Result from "effect/Result"
import type { Regs as AcrnRegs } from "../../domain/abi/VcpuRegs.ts"
import { VcpuId } from "../../domain/Address.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import { describeResult } from "../../domain/Errno.ts"
import {
  ExitReason,
  exitReasonName,
  InternalError,
  internalErrorName,
  SystemEvent,
  systemEventName
} from "./abi/ExitReason.ts"
import * as KvmRun from "./abi/KvmRun.ts"
import type { VcpuFile } from "./VcpuFile.ts"
import type { VcpuRunner } from "./VcpuRunner.ts"
import { getRegisters } from "./vcpuState.ts"

const HAS_INSTRUCTION = 1n

/** What a vCPU's stop with `Failed` or `Exited` means for its VM. */
export const endOf = (runner: VcpuRunner, stop: "Failed" | "Exited"): EndReason => {
  const { file } = runner
  const vcpu = VcpuId.make(file.id)
  if (stop === "Failed") {
    return { _tag: "Fault", message: `KVM_RUN of vCPU ${file.id} failed with ${describeResult(runner.failure)}` }
  }
  const registers = getRegisters(file)
  const known = registers === undefined ? {} : { registers }
  const exit = file.words[KvmRun.EXIT_REASON_OFFSET / 4]!
  switch (exit) {
    case ExitReason.SHUTDOWN:
      return { _tag: "Shutdown", vcpu, cause: "a triple fault", ...known }
    case ExitReason.SYSTEM_EVENT: {
      const event = file.words[KvmRun.SYSTEM_EVENT_TYPE_OFFSET / 4]!
      return event === SystemEvent.RESET
        ? { _tag: "ResetRequested", source: systemEventName(event) }
        : { _tag: "Shutdown", vcpu, cause: systemEventName(event), ...known }
    }
    case ExitReason.INTERNAL_ERROR:
      return internalError(file, registers)
    case ExitReason.FAIL_ENTRY: {
      const { hardwareEntryFailureReason } = Result.getOrThrow(
        KvmRun.FailEntryExit.decode(file.bytes, KvmRun.EXIT_OFFSET)
      )
      const cause = `the processor refused to enter the guest, reason 0x${hardwareEntryFailureReason.toString(16)}`
      return { _tag: "InternalError", vcpu, cause, ...known }
    }
    default:
      return { _tag: "InternalError", vcpu, cause: `exit ${exitReasonName(exit)}`, ...known }
  }
}

const internalError = (file: VcpuFile, registers: AcrnRegs | undefined): EndReason => {
  const vcpu = VcpuId.make(file.id)
  const known = registers === undefined ? {} : { registers }
  const suberror = file.words[KvmRun.INTERNAL_SUBERROR_OFFSET / 4]!
  const { flags, insnBytes, insnSize, ndata } = Result.getOrThrow(
    KvmRun.EmulationFailureExit.decode(file.bytes, KvmRun.EXIT_OFFSET)
  )
  const isKnown = suberror === InternalError.EMULATION && ndata > 0 && (flags & HAS_INSTRUCTION) !== 0n
  return isKnown && registers !== undefined
    ? {
      _tag: "UnsupportedInstruction",
      vcpu,
      address: Number(BigInt.asUintN(52, registers.csBase + registers.rip)),
      bytes: [...insnBytes.subarray(0, insnSize)],
      ...known
    }
    : { _tag: "InternalError", vcpu, cause: internalErrorName(suberror), ...known }
}
