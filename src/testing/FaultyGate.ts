/**
 * A gate at which hypercalls fail: a layer over any hypervisor, for tests of what a program does when a hypercall is
 * refused, is answered late, or took effect although it was refused. NOTIFY_REQUEST_FINISH is counted and fails as the
 * others do.
 *
 * Which hypercalls fail is a plan, or is drawn from a seed; the log of a drawn run says at which hypercalls it acted,
 * so a plan that replays it can be written down.
 *
 * **Example** (The third hypercall fails)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import { Errno } from "upcall/domain/Errno"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as FaultyGate from "upcall/testing/FaultyGate"
 *
 * const program = Effect.gen(function*() {
 *   const machines = yield* VirtualMachine.VirtualMachine
 *   const refusal = yield* Effect.flip(machines.create({ name: "guest", memoryBytes: 4096 }))
 *   console.log(refusal.reason._tag)
 *   // => Refused
 *   const gate = yield* FaultyGate.FaultyGate
 *   console.log(yield* gate.report)
 *   // => hypercall 3, SetMemoryRegions: Refuse ENOMEM (-12)
 *   console.log((yield* machines.create({ memoryBytes: 4096 })).id)
 *   // => 1
 * })
 * const machines = VirtualMachine.layer.pipe(
 *   Layer.provideMerge(FaultyGate.layer({ plan: [{ nth: 3, fault: { _tag: "Refuse", errno: Errno.ENOMEM } }] })),
 *   Layer.provideMerge(Simulated.layer)
 * )
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, machines)))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import { HypercallId, nameOf } from "../domain/abi/HypercallId.ts"
import { hex } from "../domain/Address.ts"
import { describeResult, Errno } from "../domain/Errno.ts"
import { HypercallGate } from "../services/HypercallGate.ts"
import { type Adversary, type AdversaryError, checkOptions, enlisted, FaultLog } from "./adversaries/Adversary.ts"
import { Chance, Rate, Seed, type Weighted, weighted, weightsOf } from "./adversaries/Chance.ts"
import { afterTurns, waitTurns } from "./adversaries/hostTurns.ts"
import * as Generator from "./Generator.ts"

export { Adversaries, AdversaryError, AdversaryErrorReason } from "./adversaries/Adversary.ts"
export type { Adversary } from "./adversaries/Adversary.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

// As Linux has them: -4095 to -1 of a result are errors.
const ErrnoNumber = between(1, 4095)
const Turns = between(1, 1000)
const Nth = between(1, 1_000_000)

/**
 * - `Refuse`: the hypervisor does not hear of it; the result is `-errno`. After a NOTIFY_REQUEST_FINISH that was refused
 *   the vCPU waits on until the page is looked at again: after an upcall without a hint, or by a rescan interval.
 * - `AppliedButRefused`: the hypervisor did it; the result is `-errno` all the same. A VM that was created so is nobody's:
 *   no program can know that it is there.
 * - `Late`: the result comes so many turns of the host later. A late NOTIFY_REQUEST_FINISH, which cannot wait, succeeds
 *   at once and reaches the hypervisor that much later.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Fault = Schema.TaggedUnion({
  Refuse: { errno: ErrnoNumber },
  AppliedButRefused: { errno: ErrnoNumber },
  Late: { turns: Turns }
})

/**
 * @category models
 * @since 0.1.0
 */
export type Fault = typeof Fault.Type

const FAULTS = ["Refuse", "AppliedButRefused", "Late"] as const

/**
 * Which hypercalls fail, and how. `nth` counts from 1: all hypercalls, or with an `id` (`HypercallId`) those of that id.
 * The first entry that a hypercall meets counts.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Plan = Schema.Array(Schema.Struct({ nth: Nth, id: Schema.optionalKey(Schema.Natural), fault: Fault }))

/**
 * @category models
 * @since 0.1.0
 */
export type Plan = typeof Plan.Type

/**
 * Either a `plan`, or faults that are drawn:
 *
 * - `seed`: the same faults for the same seed and the same hypercalls; -2^31 to 2^32 - 1.
 * - `rate`: how many hypercalls fail, 0 to 1; default 0.1.
 * - `faults`: weights of the faults to choose from, those that are not named never happening; default all, each as often.
 * - `ids`: the hypercalls that may fail (`HypercallId`); default all.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Options = Schema.Union([
  Schema.Struct({ plan: Plan }),
  Schema.Struct({
    seed: Seed,
    rate: Schema.optionalKey(Rate),
    faults: Schema.optionalKey(weightsOf(FAULTS)),
    ids: Schema.optionalKey(Schema.Array(Schema.Natural))
  })
])

/**
 * @category models
 * @since 0.1.0
 */
export type Options = typeof Options.Type

/**
 * What happened to the `nth` hypercall, counted from 1.
 *
 * @category schemas
 * @since 0.1.0
 */
export const GateFault = Schema.TaggedStruct("GateFault", { nth: Schema.Natural, id: Schema.Number, fault: Fault })

/**
 * @category models
 * @since 0.1.0
 */
export type GateFault = typeof GateFault.Type

/**
 * A fault as a line: `hypercall 3, SetMemoryRegions: Refuse ENOMEM (-12)`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ fault, id, nth }: GateFault): string => {
  const how = fault._tag === "Late" ? `by ${fault.turns} of the host's turns` : describeResult(-fault.errno)
  return `hypercall ${nth}, ${nameOf(id) ?? hex(id)}: ${fault._tag} ${how}`
}

/**
 * Plans of up to three faults among the first `hypercalls`, for property tests; the smallest is a refusal of the first.
 *
 * @category generators
 * @since 0.1.0
 */
export const plans = (hypercalls: number): Generator.Generator<Plan> => {
  const errno = Generator.elementOf(Object.values(Errno))
  const fault: Generator.Generator<Fault> = Generator.oneOf<Fault>(
    Generator.map(errno, (each) => ({ _tag: "Refuse", errno: each })),
    Generator.map(errno, (each) => ({ _tag: "AppliedButRefused", errno: each })),
    Generator.map(Generator.integer(1, 16), (turns) => ({ _tag: "Late", turns }))
  )
  return Generator.array(Generator.all({ nth: Generator.integer(1, hypercalls), fault }), {
    minLength: 1,
    maxLength: 3
  })
}

/**
 * The gate, to ask what it did.
 *
 * @category services
 * @since 0.1.0
 */
export class FaultyGate extends Context.Service<FaultyGate, Adversary<GateFault>>()("upcall/testing/FaultyGate") {}

/** Decides about each hypercall: the fault that it meets, if any. */
interface Fate {
  readonly of: (id: number, nth: number) => Fault | undefined
  readonly restart: () => void
}

const planned = (plan: Plan): Fate => {
  let counts = new Map<number, number>()
  return {
    of: (id, nth) => {
      const nthOfId = (counts.get(id) ?? 0) + 1
      counts.set(id, nthOfId)
      return plan.find((entry) => entry.id === undefined ? entry.nth === nth : entry.id === id && entry.nth === nthOfId)
        ?.fault
    },
    restart: () => {
      counts = new Map()
    }
  }
}

const drawn = (options: Exclude<Options, { readonly plan: Plan }>): Fate => {
  const { faults = { Refuse: 1, AppliedButRefused: 1, Late: 1 }, ids, rate = 0.1, seed } = options
  const choices: ReadonlyArray<Weighted<Fault["_tag"]>> = weighted(faults)
  let chance = new Chance(seed, 0)
  return {
    of: (id) => {
      if (!(ids?.includes(id) ?? true) || !chance.happens(rate)) return undefined
      const _tag = chance.pickWeighted(choices)
      return _tag === "Late"
        ? { _tag, turns: 1 + chance.below(8) }
        : { _tag, errno: chance.pick(Object.values(Errno)) }
    },
    restart: () => {
      chance = new Chance(seed, 0)
    }
  }
}

const makeGate = (
  gate: HypercallGate["Service"],
  fate: Fate,
  host: Scheduler.SchedulerDispatcher
) => {
  let passed = 0
  const log = new FaultLog<GateFault>({
    name: "FaultyGate",
    format,
    onRestart: () => {
      passed = 0
      fate.restart()
    }
  })

  const meet = (id: number): Fault | undefined => {
    passed++
    if (!log.isActive) return undefined
    const fault = fate.of(id, passed)
    if (fault !== undefined) log.add({ _tag: "GateFault", nth: passed, id, fault })
    return fault
  }

  const call: HypercallGate["Service"]["call"] = (id, param1, param2) =>
    Effect.suspend(() => {
      const fault = meet(id)
      switch (fault?._tag) {
        case undefined:
          return gate.call(id, param1, param2)
        case "Refuse":
          return Effect.succeed(-fault.errno)
        case "AppliedButRefused":
          return Effect.as(gate.call(id, param1, param2), -fault.errno)
        case "Late":
          return Effect.tap(gate.call(id, param1, param2), () => waitTurns(fault.turns))
      }
    })

  const notifyFinish: HypercallGate["Service"]["notifyFinish"] = (vmId, vcpu) => {
    const fault = meet(HypercallId.NotifyRequestFinish)
    switch (fault?._tag) {
      case undefined:
        return gate.notifyFinish(vmId, vcpu)
      case "Refuse":
        return -fault.errno
      case "AppliedButRefused":
        gate.notifyFinish(vmId, vcpu)
        return -fault.errno
      case "Late":
        afterTurns(host, fault.turns, () => gate.notifyFinish(vmId, vcpu))
        return 0
    }
  }

  return { gate: HypercallGate.of({ profile: gate.profile, call, notifyFinish }), log }
}

/**
 * A faulty gate before the hypervisor that this layer is given. Each call is a gate of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<FaultyGate | HypercallGate, AdversaryError, HypercallGate> =>
  Layer.effectContext(Effect.gen(function*() {
    const checked = yield* checkOptions("FaultyGate", Options, options)
    const fate = "plan" in checked ? planned(checked.plan) : drawn(checked)
    const host = (yield* Scheduler.Scheduler).makeDispatcher()
    const { gate, log } = makeGate(yield* HypercallGate, fate, host)
    return (yield* enlisted(log.adversary)).pipe(
      Context.add(HypercallGate, gate),
      Context.add(FaultyGate, log.adversary)
    )
  }))
