/**
 * The capability `VcpuSnapshots` on KVM.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { hex } from "../../../domain/Address.ts"
import { describeResult, Errno } from "../../../domain/Errno.ts"
import { VcpuSnapshot } from "../../../domain/VcpuSnapshot.ts"
import { CapabilityError, type VcpuSnapshots } from "../../../services/Hypervisor.ts"
import type { Engine } from "../Engine.ts"
import { rawOf, snapshotOf } from "./convert.ts"
import { isRefusal, type RawState, type Refusal, type StateAccess } from "./RawState.ts"

/** What stands in the way, and its errno. */
interface Problem {
  readonly errno: number
  readonly problem: string
}

const check = Schema.decodeUnknownResult(Schema.toType(VcpuSnapshot))

export const makeVcpuSnapshots = (
  engines: ReadonlyMap<number, Engine>,
  access: StateAccess
): VcpuSnapshots["Service"] => ({
  read: (vmId, vcpu) =>
    answer(
      vmId,
      `reading vCPU ${vcpu}`,
      () => Result.flatMap(stopped(engines, vmId, vcpu), ({ file }) => Result.map(readState(access, file), snapshotOf))
    ),
  write: (vmId, vcpu, snapshot) =>
    answer(vmId, `writing vCPU ${vcpu}`, () =>
      Result.flatMap(stopped(engines, vmId, vcpu), ({ engine, file }) => {
        if (engine.isOver) {
          return fail(Errno.EBUSY, "its guest has ended; reset the VM before a vCPU gets another state")
        }
        const checked = check(snapshot)
        if (Result.isFailure(checked)) return fail(Errno.EINVAL, `it is no VcpuSnapshot: ${checked.failure.message}`)
        return Result.flatMap(readState(access, file), (before) => {
          const raw = rawOf(checked.success, before)
          if (typeof raw === "string") return fail(Errno.EINVAL, raw)
          const refusal = access.write(file, raw)
          if (refusal !== undefined) return putBack(access, file, before, refusal)
          engine.keepState(vcpu)
          return Result.succeed(undefined)
        })
      }))
})

const fail = (errno: number, problem: string): Result.Result<never, Problem> => Result.fail({ errno, problem })

const answer = <A>(
  vmId: number,
  action: string,
  f: () => Result.Result<A, Problem>
): Effect.Effect<A, CapabilityError> =>
  Effect.suspend(() =>
    Effect.fromResult(
      Result.mapError(
        f(),
        ({ errno, problem }) =>
          new CapabilityError({ capability: `VcpuSnapshots (${action})`, vmId, result: -errno, problem })
      )
    )
  )

/** A vCPU whose state can be told. */
const stopped = (engines: ReadonlyMap<number, Engine>, vmId: number, vcpu: number) => {
  const engine = engines.get(vmId)
  if (engine === undefined) return fail(Errno.ENOENT, "there is no such VM; it was destroyed, or never made")
  const file = engine.file.vcpus[vcpu]
  if (file === undefined) {
    return fail(Errno.ENOENT, `it has vCPUs 0 to ${engine.file.vcpus.length - 1} only; ask for one of them`)
  }
  if (engine.isRunning) return fail(Errno.EBUSY, "the VM runs; pause it first")
  if (engine.isInside(vcpu)) {
    return fail(
      Errno.EBUSY,
      "the vCPU waits inside an instruction for the answer to its request; resume the VM, let its request be answered, " +
        "and pause it again, or reset it"
    )
  }
  return Result.succeed({ engine, file })
}

const readState = (
  access: StateAccess,
  file: Engine["file"]["vcpus"][number]
): Result.Result<RawState, Problem> => {
  const state = access.read(file)
  return isRefusal(state)
    ? fail(-state.result, `KVM did not let ${nameOf(state)} be read`)
    : Result.succeed(state)
}

/** Undoes what was written before the part that was refused. */
const putBack = (
  access: StateAccess,
  file: Engine["file"]["vcpus"][number],
  before: RawState,
  refusal: Refusal
): Result.Result<never, Problem> => {
  const again = access.write(file, before)
  const rest = again === undefined
    ? "the vCPU has its old state again"
    : `and ${nameOf(again)} of its old state could not be put back (${describeResult(again.result)}): reset the VM`
  return fail(-refusal.result, `KVM refused ${nameOf(refusal)} of the snapshot; ${rest}`)
}

const nameOf = ({ msr, part }: Refusal): string => {
  switch (part) {
    case "msrs":
      return msr === undefined ? "the model-specific registers" : `MSR ${hex(msr.index)} with value ${hex(msr.data)}`
    case "tsc":
      return "the time stamp counter"
    default:
      return `the part "${part}"`
  }
}
