/**
 * What a layer on the hypervisor model implements: something that runs the vCPUs of one VM.
 */
import type * as Effect from "effect/Effect"
import type { MemoryRegionOp } from "../../domain/abi/MemoryRegionBatch.ts"
import type { Regs } from "../../domain/abi/VcpuRegs.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import type { GuestTime } from "../../services/Hypervisor.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"

/** The model has checked each call's state and ids; the results are hypercall results. */
export interface VmEngine {
  /** The VM's own time; `undefined` where its guest has the host's. */
  readonly time: GuestTime | undefined
  readonly setRequestPage: (page: ServicePage | undefined) => void
  readonly setRegisters: (vcpu: number, registers: Regs) => number
  /** `undefined` while a vCPU stands inside an instruction, which has no register values. */
  readonly getRegisters: (vcpu: number) => Regs | undefined
  /**
   * Applies one memory operation, of pages that lie inside the address space: all of it, or nothing. It may stand for
   * many of a batch: the driver sends RAM page by page.
   */
  readonly applyMemory: (operation: MemoryRegionOp) => number
  /** Begins to run these vCPUs; returns before they ran. */
  readonly start: (vcpus: ReadonlyArray<number>) => void
  /** Returns when no vCPU executes any more. It never waits for a request's completion. */
  readonly pause: Effect.Effect<void>
  readonly resume: () => void
  /** The page's slots are free again; every vCPU forgets what it waited for. */
  readonly reset: () => void
  readonly destroy: Effect.Effect<void>
  readonly notify: (vcpu: number) => void
  readonly setIrq: (line: number, high: boolean) => void
}

/** What the model gives an engine. */
export interface EngineOptions {
  readonly vmId: number
  readonly vcpus: number
  /** The guest stopped by itself. */
  readonly onEnd: (reason: EndReason) => void
}
