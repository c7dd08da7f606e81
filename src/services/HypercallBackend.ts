/**
 * The shared adapter for writers of hypervisor layers: from raw calls at the gate to typed hypercalls, and results back
 * into Service VM memory.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { VmCreation } from "../domain/abi/VmCreation.ts"
import { Errno } from "../domain/Errno.ts"
import * as Hypercall from "../domain/Hypercall.ts"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { ADDRESS_SPACE_END } from "../domain/Limits.ts"
import { HypercallGate } from "./HypercallGate.ts"
import type { ServiceMemory } from "./ServiceMemory.ts"

/**
 * What a hypervisor layer implements: typed hypercalls in, results out. `notifyFinish` is the hot one, see
 * {@link HypercallGate}.
 *
 * @category models
 * @since 0.1.0
 */
export interface HypercallBackend {
  readonly execute: (hypercall: Hypercall.Hypercall) => Effect.Effect<Hypercall.HypercallOutcome>
  readonly notifyFinish: (vmId: number, vcpu: number) => number
}

/**
 * Operations that a layer takes in one batch. The Linux driver sends one per page of scattered RAM and cannot allocate
 * a batch of more than 131,071; this bounds the memory that a hostile count can make us allocate, not a VM.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_BATCH_OPERATIONS = 0x2_0000

/**
 * Puts a gate before a backend: reads the structures of a raw call, once, and writes what CREATE_VM fills in.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeGate = (
  profile: HypervisorProfile,
  memory: ServiceMemory["Service"],
  backend: HypercallBackend
): HypercallGate["Service"] => {
  const read: Hypercall.StructureReader = (address, bytes) => {
    if (address >= BigInt(ADDRESS_SPACE_END)) return undefined
    const into = new Uint8Array(bytes)
    return Result.isSuccess(memory.read(Number(address), into)) ? into : undefined
  }
  const call = (id: number, param1: bigint, param2: bigint): Effect.Effect<number> => {
    const decoded = Hypercall.decode({ id, param1, param2 }, read, MAX_BATCH_OPERATIONS)
    if (Result.isFailure(decoded)) return Effect.succeed(decoded.failure)
    const hypercall = decoded.success
    return Effect.map(backend.execute(hypercall), (outcome) => {
      if (hypercall._tag !== "CreateVm" || outcome.created === undefined) return outcome.result
      const filled = VmCreation.encode({
        ...hypercall.creation,
        vmid: outcome.created.vmId,
        vcpuNum: outcome.created.vcpuNum
      })
      const written = Result.flatMap(filled, (bytes) => memory.write(Number(param1), bytes))
      return Result.isSuccess(written) ? outcome.result : -Errno.EPERM
    })
  }
  return HypercallGate.of({
    profile,
    call: (id, param1, param2) => Effect.suspend(() => call(id, param1, param2)),
    notifyFinish: backend.notifyFinish
  })
}
