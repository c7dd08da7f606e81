/**
 * The seam and the capabilities of a layer on the hypervisor model, as one context.
 */
import * as Context from "effect/Context"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { makeGate } from "../../services/HypercallBackend.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import { GuestEnds, GuestTimes, type Hypervisor, IrqLines, Resume, VcpuState } from "../../services/Hypervisor.ts"
import { ServiceMemory } from "../../services/ServiceMemory.ts"
import { Upcalls } from "../../services/Upcalls.ts"
import { type HypervisorModel, IRQ_LINES } from "./HypervisorModel.ts"

/** What every layer on the model can do beside the seam. */
export type ModelCapabilities = IrqLines | Resume | VcpuState

/** Wall-clock time at which a VM with virtual time starts: 2026-01-01T00:00:00Z, in milliseconds since 1970. */
export const DEFAULT_EPOCH_MS = 1_767_225_600_000

export const provide = (
  profile: HypervisorProfile,
  memory: ServiceMemory["Service"],
  upcalls: Upcalls["Service"],
  model: HypervisorModel
): Context.Context<Hypervisor | ModelCapabilities> =>
  Context.empty().pipe(
    Context.add(HypercallGate, makeGate(profile, memory, model)),
    Context.add(ServiceMemory, memory),
    Context.add(Upcalls, upcalls),
    Context.add(IrqLines, IrqLines.of({ set: model.setIrq, count: IRQ_LINES })),
    Context.add(Resume, Resume.of({ resume: model.resume })),
    Context.add(VcpuState, VcpuState.of({ read: model.readRegisters })),
    Context.add(GuestTimes, { of: model.timeOf }),
    Context.add(GuestEnds, { register: model.onEnd })
  )
