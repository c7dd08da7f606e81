/**
 * The seam as one type, and the capabilities that a layer may offer beside it.
 *
 * Each capability is a service: a program that needs one has it in its type and does not compile on a layer without
 * it. Guest time and the guest's own end have defaults, because every VM has them in some form.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { EndReason } from "../domain/EndReason.ts"
import { describeResult } from "../domain/Errno.ts"
import type { VcpuRegisters } from "../domain/VcpuRegisters.ts"
import type { VcpuSnapshot } from "../domain/VcpuSnapshot.ts"
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
 * What a capability was asked for and could not do. `problem` is the layer's own account of it.
 *
 * @category errors
 * @since 0.1.0
 */
export class CapabilityError extends Schema.TaggedError<CapabilityError>()("CapabilityError", {
  capability: Schema.String,
  vmId: Schema.Number,
  result: Schema.Number,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.capability} of VM ${this.vmId} was refused with ${describeResult(this.result)}: ${this.problem}`
  }
}

/**
 * Reading and writing the whole state of a stopped vCPU. Both fail while the VM runs, and while the vCPU stands inside an
 * instruction that waits for an answer, since it has no state that could be told then.
 *
 * A vCPU that was written goes on as the snapshot says when the VM is started or resumed, until its registers are set or
 * the VM is reset. Writing fails also for a guest that has ended, which must be reset first.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class VcpuSnapshots extends Context.Service<VcpuSnapshots, {
  readonly read: (vmId: number, vcpu: number) => Effect.Effect<VcpuSnapshot, CapabilityError>
  /** All of it, or nothing: when some part is refused, the vCPU has its old state again. */
  readonly write: (vmId: number, vcpu: number, snapshot: VcpuSnapshot) => Effect.Effect<void, CapabilityError>
}>()("upcall/services/VcpuSnapshots") {}

/**
 * A message-signalled interrupt: the address names the vCPU (bits 19..12 of 0xFEE00000 and above), the data the vector
 * (bits 7..0).
 *
 * @category models
 * @since 0.1.0
 */
export interface MsiMessage {
  readonly address: number
  readonly data: number
}

/**
 * Interrupts by message (ACRN's INJECT_MSI). As cheap as a line, and it may be done from an I/O handler. The result is
 * that of a hypercall: 0, or a negative errno.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class Msi extends Context.Service<Msi, {
  readonly inject: (vmId: number, message: MsiMessage) => number
}>()("upcall/services/Msi") {}

/**
 * How often a passthrough device's interrupt came; `irq` is its number on the board.
 *
 * @category models
 * @since 0.1.0
 */
export interface IrqCount {
  readonly irq: number
  readonly count: bigint
}

/**
 * Watching a VM's passthrough interrupts (ACRN's VM_INTR_MONITOR), so that a storm of them can be slowed down.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class IrqMonitor extends Context.Service<IrqMonitor, {
  /** The counts so far, one for each passthrough interrupt. */
  readonly counts: (vmId: number) => Effect.Effect<ReadonlyArray<IrqCount>, CapabilityError>
  /** Delays each interrupt by this many milliseconds; 0 ends it. */
  readonly delay: (vmId: number, milliseconds: number) => Effect.Effect<void, CapabilityError>
}>()("upcall/services/IrqMonitor") {}

/**
 * A write by the guest that needs no answer: of `bytes` bytes at `address`, and with `match` only of that value. Without
 * `bytes` a write of any size that begins there counts, on layers that can tell so (KVM), and `match` cannot be asked
 * for.
 *
 * @category models
 * @since 0.1.0
 */
export interface DoorbellPlace {
  readonly space: "Port" | "Mmio"
  readonly address: number
  readonly bytes?: 1 | 2 | 4 | 8
  readonly match?: bigint
}

/**
 * `fd` is an eventfd of this process, to be given to what shall hear the bell. `rings` tells how often it rang since it
 * was last asked, and does not wait. `awaitRing` waits until that is at least once; it ends with `Done` when the
 * doorbell is taken away, by its scope or with its VM. Of several that wait each ring is told to one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Doorbell {
  readonly fd: number
  readonly rings: Effect.Effect<bigint>
  readonly awaitRing: Effect.Effect<bigint, Cause.Done>
}

/**
 * Doorbells that the kernel answers without asking any I/O client (ACRN's and KVM's IOEVENTFD): the guest's write costs
 * no exit to this process. Clients do not see these writes. Reads of the place give 0 on ACRN; on KVM they go to the
 * client, as do writes of another size or value.
 *
 * `IoClient.doorbell` hangs one where a client owns the address, which is what a device wants.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class Doorbells extends Context.Service<Doorbells, {
  /**
   * Hangs a doorbell until the scope closes, or the VM is destroyed. Refused, with what to do, where there is no such
   * VM or place, and where another doorbell hears the same writes.
   */
  readonly attach: (vmId: number, place: DoorbellPlace) => Effect.Effect<Doorbell, CapabilityError, Scope.Scope>
}>()("upcall/services/Doorbells") {}

/**
 * `fd` is an eventfd of this process: whoever writes to it interrupts the guest. `raise` does so; its result is 0, or a
 * negative errno: -EBADF once it was taken away, by its scope or with its VM.
 *
 * @category models
 * @since 0.1.0
 */
export interface IrqFd {
  readonly fd: number
  readonly raise: () => number
}

/**
 * Interrupts that the kernel injects when an eventfd is written (ACRN's and KVM's IRQFD), by whatever process or device
 * of the host.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class IrqFds extends Context.Service<IrqFds, {
  /** Makes an eventfd that raises this interrupt until the scope closes, or the VM is destroyed. */
  readonly attach: (vmId: number, message: MsiMessage) => Effect.Effect<IrqFd, CapabilityError, Scope.Scope>
}>()("upcall/services/IrqFds") {}

/**
 * `take` gives the numbers (address / 4096) of the guest's pages that were written since it was last asked, or since
 * tracking began: ascending, each once.
 *
 * @category models
 * @since 0.1.0
 */
export interface DirtyPages {
  readonly take: Effect.Effect<ReadonlyArray<number>, CapabilityError>
}

/**
 * Which pages of RAM were written: what has to be copied again of a guest that runs on (KVM's dirty log).
 *
 * Writes of the guest count, and those of this process by `GuestMemory` and `ServiceMemory.write`; not what is stored
 * through a page object, nor by other processes that share the memory. Memory that is mapped while tracking begins
 * unwritten. A page that was written and unmapped may still be told.
 *
 * @category capabilities
 * @since 0.1.0
 */
export class DirtyLog extends Context.Service<DirtyLog, {
  /**
   * Tracks a VM's writes until the scope closes, which costs the guest an exit at its first write to each page after
   * each `take`. Refused when there is no such VM, and when it is tracked already: the kernel tells each write once.
   */
  readonly track: (vmId: number) => Effect.Effect<DirtyPages, CapabilityError, Scope.Scope>
}>()("upcall/services/DirtyLog") {}

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
