/**
 * Why a guest stopped by itself. For the hypervisor its VM is still Running until it is paused and destroyed.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { hex, VcpuId } from "./Address.ts"
import { VcpuRegisters } from "./VcpuRegisters.ts"

/**
 * - `Exited`: the guest wrote `status` (0 to 255) to its debug exit device.
 * - `Halted`: every vCPU executed HLT with interrupts off, so nothing can wake one.
 * - `Shutdown`: a triple fault, which resets a real machine; how a guest without other means reboots, and how
 *   most guests crash. `cause` is the layer's own words.
 * - `ResetRequested`: the guest asked its chipset for a reset; `source` says through what.
 * - `UnsupportedInstruction`: the layer's vCPU cannot execute what stands at the guest physical `address`;
 *   `bytes` are the instruction and what follows it.
 * - `Stopped`: the guest did not stop by itself: the VM was reset or closed first.
 * - `InternalError`: the hypervisor could not go on with the vCPU; `cause` is its own account of it.
 * - `Fault`: the layer itself failed while it ran the guest; the VM can only be destroyed.
 *
 * `registers` are the vCPU's at that moment, on layers that can still read them then.
 *
 * @category schemas
 * @since 0.1.0
 */
export const EndReason = Schema.TaggedUnion({
  Exited: { status: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })) },
  Halted: {},
  Shutdown: { vcpu: VcpuId, cause: Schema.String, registers: Schema.optionalKey(VcpuRegisters) },
  ResetRequested: { source: Schema.String },
  Stopped: {},
  UnsupportedInstruction: {
    vcpu: VcpuId,
    address: Schema.Int,
    bytes: Schema.Array(Schema.Int),
    registers: Schema.optionalKey(VcpuRegisters)
  },
  InternalError: { vcpu: VcpuId, cause: Schema.String, registers: Schema.optionalKey(VcpuRegisters) },
  Fault: { message: Schema.String }
})

/**
 * @category models
 * @since 0.1.0
 */
export type EndReason = typeof EndReason.Type

/**
 * One sentence for people.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (reason: EndReason): string => {
  switch (reason._tag) {
    case "Exited":
      return `the guest exited with status ${reason.status}`
    case "Halted":
      return "every vCPU halted with interrupts off"
    case "Shutdown":
      return `vCPU ${reason.vcpu} shut down: ${reason.cause}`
    case "Stopped":
      return "its owner stopped the VM"
    case "ResetRequested":
      return `the guest asked for a reset through ${reason.source}`
    case "UnsupportedInstruction":
      return `vCPU ${reason.vcpu} met an instruction this layer does not execute at ${hex(reason.address)}: ` +
        reason.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")
    case "InternalError":
      return `the hypervisor could not go on with vCPU ${reason.vcpu}: ${reason.cause}`
    case "Fault":
      return `the hypervisor layer failed: ${reason.message}`
  }
}
