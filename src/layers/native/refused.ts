/**
 * A capability's refusal, with the layer's account of it.
 */
import * as Effect from "effect/Effect"
import { Errno } from "../../domain/Errno.ts"
import { CapabilityError } from "../../services/Hypervisor.ts"

export const refused = (
  capability: string,
  vmId: number,
  result: number,
  problem: string
): Effect.Effect<never, CapabilityError> => Effect.fail(new CapabilityError({ capability, vmId, result, problem }))

export const noVm = (capability: string, vmId: number): Effect.Effect<never, CapabilityError> =>
  refused(capability, vmId, -Errno.ENODEV, "there is no VM of this id; it was destroyed, or never created")
