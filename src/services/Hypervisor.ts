/**
 * The seam as one type, and the capabilities that a layer may offer beside it.
 *
 * Each capability is a service: a program that needs one has it in its type and does not compile on a layer without
 * it. Guest time and the guest's own end have defaults, because every VM has them in some form.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import type { EndReason } from "../domain/EndReason.ts"
import type { VcpuRegisters } from "../domain/VcpuRegisters.ts"
import type { HypercallGate } from "./HypercallGate.ts"
import type { ServiceMemory } from "./ServiceMemory.ts"
import type { Upcalls } from "./Upcalls.ts"

/**
 * What stands under every Upcall program; each hypervisor layer provides all three together.
 *
 * @category models
 * @since 0.1.0
 */
export type Hypervisor = HypercallGate | ServiceMemory | Upcalls

/**
 * Interrupt lines into a VM's interrupt controller (ACRN's SET_IRQLINE). Setting a line is synchronous and cheap, it
 * may be done from an I/O handler; the vCPU sees it at its next instruction boundary or later.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class IrqLines extends Context.Service<IrqLines, {
  /** Sets line `gsi` (0 to `count` - 1) of a VM high or low. A line or VM that is not there is ignored. */
  readonly set: (vmId: number, gsi: number, high: boolean) => void
  /** Lines that each VM has. */
  readonly count: number
}>()("upcall/services/IrqLines") {}

/**
 * Running a paused VM on, which ACRN's hypercalls cannot. The result is that of a hypercall: 0, or a negative errno.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class Resume extends Context.Service<Resume, {
  readonly resume: (vmId: number) => Effect.Effect<number>
}>()("upcall/services/Resume") {}

/**
 * Reading a stopped vCPU's registers. `undefined` when the VM or the vCPU is not there, or is running.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class VcpuState extends Context.Service<VcpuState, {
  readonly read: (vmId: number, vcpu: number) => Effect.Effect<VcpuRegisters | undefined>
}>()("upcall/services/VcpuState") {}

/**
 * The Clock and Scheduler of one VM's devices.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestTime {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
}

/**
 * Guest time by VM. A layer without its own notion of it leaves the default: the time of the host.
 *
 * @category capabilities
 * @since 0.1.0
 */
export const GuestTimes = Context.Reference<{ readonly of: (vmId: number) => GuestTime | undefined }>(
  "upcall/services/GuestTimes",
  { defaultValue: () => ({ of: () => undefined }) }
)

/**
 * How a layer tells that a guest stopped by itself. A layer that cannot know leaves the default, which never tells.
 *
 * @category capabilities
 * @since 0.1.0
 */
export const GuestEnds = Context.Reference<{
  /** Calls `handler` at most once per life of the VM; the result takes the registration back. */
  readonly register: (vmId: number, handler: (reason: EndReason) => void) => () => void
}>("upcall/services/GuestEnds", {
  defaultValue: () => ({ register: () => () => undefined })
})
