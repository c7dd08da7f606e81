/**
 * A virtual machine as programs hold it: one handle type per state, so that a command which the state does not accept
 * does not compile. A handle from an earlier state is refused when it is used.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { VmId } from "../domain/Address.ts"
import type { EndReason } from "../domain/EndReason.ts"
import type { ImagePlan } from "../domain/ImagePlan.ts"
import type { AccessRights, CacheType, MappedRegion } from "../domain/MemoryRegion.ts"
import type { VcpuRegisters } from "../domain/VcpuRegisters.ts"
import type { VmState, VmTransition } from "../domain/VmState.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import type { Resume, VcpuState } from "./Hypervisor.ts"
import type { IoDispatcher } from "./IoDispatcher.ts"
import type { IoRequestBuffer } from "./IoRequestBuffer.ts"
import type { Machine } from "./Machine.ts"
import type { VirtualMachineError } from "./VirtualMachineError.ts"

/**
 * What a VM is made of. `vcpus` is 1 to 16, default 1; `memoryBytes` a positive multiple of 4096, mapped from guest
 * address 0 on; `name` is how messages call it (default `vm0`, `vm1`, ...). A layer's `profile` may allow less.
 *
 * @category models
 * @since 0.1.0
 */
export interface VmOptions {
  readonly name?: string
  readonly vcpus?: number
  readonly memoryBytes: number
}

/**
 * What can be done with a VM in any state.
 *
 * @category models
 * @since 0.1.0
 */
export interface Vm {
  readonly id: VmId
  readonly name: string
  readonly vcpus: number
  /** RAM that the VM was created with, in bytes. */
  readonly memoryBytes: number
  /** Its RAM by guest physical address. */
  readonly memory: GuestMemory["Service"]
  /** Where I/O clients register. */
  readonly io: IoDispatcher["Service"]
  /** The slots of its I/O request page, to look at, and to serve by hand while the dispatcher is drained. */
  readonly requests: IoRequestBuffer["Service"]
  /** The VM as its devices see it; `attach` provides it. */
  readonly machine: Machine["Service"]
  readonly state: Effect.Effect<VmState>
  /** The steps so far, oldest first; the last 1024 are kept. */
  readonly transitions: Effect.Effect<ReadonlyArray<VmTransition>>
  /**
   * Makes a device part of this VM: gives it the VM as its `Machine`, and a scope that ends with the VM, or at once when
   * the device fails.
   */
  readonly attach: <A, E, R>(
    device: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, Exclude<R, Machine | Scope.Scope>>
  /** Reads a vCPU's registers; the VM must not be running. */
  readonly registers: (vcpu: number) => Effect.Effect<VcpuRegisters, VirtualMachineError, VcpuState>
}

/**
 * What can be done while no vCPU runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoppedVm extends Vm {
  /** Sets what a vCPU starts with. Fails with `BadRegisters` when no processor takes them. */
  readonly setRegisters: (vcpu: number, registers: VcpuRegisters) => Effect.Effect<void, VirtualMachineError>
  /**
   * Writes an image's segments to memory and its registers to vCPU 0. Nothing is written when a segment does not fit or
   * vCPU 0 cannot start with the registers.
   */
  readonly load: (plan: ImagePlan) => Effect.Effect<void, VirtualMachineError>
  /** Gives the VM zero-filled RAM at `[guestAddress, guestAddress + bytes)`; both page-aligned. */
  readonly mapMemory: (
    region: {
      readonly guestAddress: number
      readonly bytes: number
      readonly rights?: AccessRights
      readonly cacheType?: CacheType
    }
  ) => Effect.Effect<MappedRegion, VirtualMachineError>
  /** Takes RAM away; every byte of the region must be mapped. Memory of which no page is mapped any more is given back. */
  readonly unmapMemory: (
    region: { readonly guestAddress: number; readonly bytes: number }
  ) => Effect.Effect<void, VirtualMachineError>
}

/**
 * A VM that has not started in this life.
 *
 * @category models
 * @since 0.1.0
 */
export interface CreatedVm extends StoppedVm {
  readonly _tag: "Created"
  /** Runs vCPU 0, and on layers with `startsAllVcpus` every vCPU whose registers were set. */
  readonly start: Effect.Effect<RunningVm, VirtualMachineError>
  /** Makes the VM Paused without having run; it can only be reset then. */
  readonly pause: Effect.Effect<PausedVm, VirtualMachineError>
}

/**
 * A VM whose vCPUs run. It stays Running when its guest stops by itself, until it is paused.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunningVm extends Vm {
  readonly _tag: "Running"
  /** Waits until the guest stops by itself, and tells why; `Stopped` when the VM is reset or closed first. */
  readonly ended: Effect.Effect<EndReason>
  /**
   * Waits until no request is held (requests that come meanwhile stay pending), then stops the vCPUs. Fails with
   * `NotDrained`, and the VM runs on, when a handler does not answer by the deadline (default 1 second).
   */
  readonly pause: Effect.Effect<PausedVm, VirtualMachineError>
  /** As `pause`, with a deadline of one's own. */
  readonly pauseWithin: (deadline: Duration.Input) => Effect.Effect<PausedVm, VirtualMachineError>
}

/**
 * A VM whose vCPUs stand still.
 *
 * @category models
 * @since 0.1.0
 */
export interface PausedVm extends StoppedVm {
  readonly _tag: "Paused"
  /** Runs on, on layers that can; ACRN cannot. */
  readonly resume: Effect.Effect<RunningVm, VirtualMachineError, Resume>
  /** Drops what is in flight, resets the devices, and makes the VM Created again. Memory and registers stay. */
  readonly reset: Effect.Effect<CreatedVm, VirtualMachineError>
}
