/**
 * Where the vCPUs of a VM run: what the engine asks of it.
 */
import type * as Effect from "effect/Effect"
import type { EndReason } from "../../domain/EndReason.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { UpcallHandler } from "../../services/Upcalls.ts"
import type { VcpuFile } from "./VcpuFile.ts"

export interface Placement {
  readonly setRequestPage: (page: ServicePage | undefined) => void
  /** Lets these vCPUs run from the next {@link run} on. */
  readonly start: (vcpus: ReadonlyArray<number>) => void
  /** Begins to run the vCPUs that were started; returns before they ran. */
  readonly run: () => void
  /** Returns when no vCPU executes any more; what was answered is then finished. */
  readonly pause: Effect.Effect<void>
  readonly notify: (vcpu: number) => void
  /** An interrupt may have come for a vCPU that waits for one. */
  readonly wake: () => void
  /** Makes a change of the VM that a running vCPU must not see half of. */
  readonly whileStopped: <A>(change: () => A) => A
  /** Whether a vCPU that does not run stands inside an instruction. */
  readonly isInside: (vcpu: number) => boolean
  /** Ends the instruction of a vCPU that does not run, since its registers are set anew. */
  readonly discard: (vcpu: number) => void
  /** The VM was reset, its slots cleared: no vCPU is started or waits for an answer any more. */
  readonly abandon: () => void
  /** The VM goes; nothing may use the vCPUs' files after it. */
  readonly close: Effect.Effect<void>
}

/** What an engine gives its placement. */
export interface PlacementOptions {
  readonly vmId: number
  readonly vcpus: ReadonlyArray<VcpuFile>
  readonly raise: UpcallHandler
  /** The guest stopped by itself, or something failed: no vCPU shall run any more. */
  readonly onEnd: (reason: EndReason) => void
}

export type MakePlacement = (options: PlacementOptions) => Placement
