/**
 * How the parts of a VM refuse: with a reason of their own, or with the message of what refused them.
 */
import * as Effect from "effect/Effect"
import { VirtualMachineError, type VirtualMachineErrorReason } from "../VirtualMachineError.ts"

export const refuse = (reason: VirtualMachineErrorReason) => Effect.fail(new VirtualMachineError({ reason }))

/** Names the step of a VM that could not be taken. */
export const refusedAt = (vm: string, step: string) => (error: { readonly message: string }) =>
  new VirtualMachineError({ reason: { _tag: "Refused", vm, step, problem: error.message } })
