/**
 * Why a VM could not be made, or did not take a command.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { formatSpan } from "../domain/MemoryRegion.ts"
import * as VmState from "../domain/VmState.ts"

/**
 * - `BeyondCapability`: the layer cannot do `what`; nothing was created. `asked` and `limit` count `what`, or name it.
 * - `BadOption`: an option or argument is not in its range; nothing was done.
 * - `Stale`: the handle is from an earlier state; nothing was done.
 * - `IllegalState`: the VM's state does not accept the command.
 * - `Overlap`: the region overlaps one that is mapped; nothing was mapped.
 * - `NotMapped`: not every byte of the region is mapped; nothing was unmapped.
 * - `NotDrained`: a client held a request past the deadline; the VM runs on.
 * - `BadImage`: an image's segment does not fit this VM; nothing was written.
 * - `BadRegisters`: the register values cannot be; nothing was set.
 * - `Refused`: the hypervisor refused, or had no memory; `problem` is its own message.
 *
 * @category errors
 * @since 0.1.0
 */
export const VirtualMachineErrorReason = Schema.TaggedUnion({
  BeyondCapability: {
    hypervisor: Schema.String,
    what: Schema.String,
    asked: Schema.Union([Schema.Number, Schema.String]),
    limit: Schema.Union([Schema.Number, Schema.String])
  },
  BadOption: { option: Schema.String, value: Schema.Number, expected: Schema.String },
  Stale: { vm: Schema.String, handle: Schema.String, current: Schema.String },
  IllegalState: { vm: Schema.String, command: VmState.VmCommand, state: Schema.String },
  Overlap: {
    guestAddress: Schema.Number,
    bytes: Schema.Number,
    mappedAddress: Schema.Number,
    mappedBytes: Schema.Number
  },
  NotMapped: { guestAddress: Schema.Number, bytes: Schema.Number },
  NotDrained: { vm: Schema.String, problem: Schema.String },
  BadImage: { problem: Schema.String },
  BadRegisters: { vcpu: Schema.Number, problem: Schema.String },
  Refused: { vm: Schema.String, step: Schema.String, problem: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type VirtualMachineErrorReason = typeof VirtualMachineErrorReason.Type

/**
 * A VM that could not be made, or a command that it did not take.
 *
 * @category errors
 * @since 0.1.0
 */
export class VirtualMachineError
  extends Schema.TaggedError<VirtualMachineError>()("VirtualMachineError", { reason: VirtualMachineErrorReason })
{
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "BeyondCapability":
        return typeof reason.limit === "number"
          ? `the ${reason.hypervisor} hypervisor gives a VM at most ${reason.limit} ${reason.what}, not ` +
            `${reason.asked}; ask for less, or choose another hypervisor layer`
          : `the ${reason.hypervisor} hypervisor cannot give ${reason.what} ${reason.asked}, only ${reason.limit}; ` +
            "ask for that, or choose another hypervisor layer"
      case "BadOption":
        return `${reason.option} is ${reason.value} but must be ${reason.expected}`
      case "Stale":
        return `this handle of VM "${reason.vm}" is from its ${reason.handle} state, the VM is ${reason.current} now; ` +
          "use the handle that the last command returned"
      case "IllegalState":
        return `VM "${reason.vm}" is ${reason.state}, ${reason.command} is accepted when it is ` +
          VmState.acceptedIn(reason.command)
      case "Overlap":
        return `guest memory ${formatSpan(reason.guestAddress, reason.bytes)} overlaps ` +
          `${formatSpan(reason.mappedAddress, reason.mappedBytes)}, which is mapped; unmap that first`
      case "NotMapped":
        return `guest memory ${formatSpan(reason.guestAddress, reason.bytes)} is not all mapped; ` +
          "unmap only what memory.regions lists"
      case "NotDrained":
        return `VM "${reason.vm}" was not paused and runs on: ${reason.problem}`
      case "BadImage":
        return `the image does not fit this VM: ${reason.problem}`
      case "BadRegisters":
        return `registers of vCPU ${reason.vcpu} were not set: ${reason.problem}`
      case "Refused":
        return `VM "${reason.vm}" could not ${reason.step}: ${reason.problem}`
    }
  }
}
