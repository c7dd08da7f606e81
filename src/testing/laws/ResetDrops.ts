/**
 * Law 11, in two kinds of cases: guests that are reset in the middle and begin anew, and slots by hand, where the
 * handlers of the old life answer in the new one.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { CreatedVm } from "../../services/Vm.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import * as Trace from "../Trace.ts"
import { guestsAlone, isAboveModule } from "./aboveModule.ts"
import * as Activity from "./Activity.ts"
import * as Moments from "./Moments.ts"
import * as ProgramCase from "./ProgramCase.ts"
import * as Reference from "./Reference.ts"
import { slotCases, submits, valued } from "./slotCases.ts"
import * as SlotSteps from "./SlotSteps.ts"

/** Each life but the last ends at its moment, or when its guest ends before. */
interface Lives {
  readonly _tag: "Lives"
  readonly guest: ProgramCase.ProgramCase
  readonly resets: ReadonlyArray<Moments.Moment>
  /** Turns of the host that each handler takes, beside what it takes anyway. */
  readonly hostTurns: number
}

type Case = Lives | { readonly _tag: "ByHand"; readonly slots: SlotSteps.SlotCase }

/** Each vCPU of a life that was cut short did the first part of what it does in a whole one. */
const problemOfBeginning = (
  { programs, world }: ProgramCase.ProgramCase,
  entries: ReadonlyArray<Trace.TraceEntry>
): string | undefined => {
  const served = Reference.servedIn(entries, programs.length)
  const whole = Reference.run(world, programs, Reference.inPiecesOf(served))
  for (const [vcpu, seen] of served.entries()) {
    const problem = Reference.firstDifference(whole[vcpu]!.served.slice(0, seen.length), seen)
    if (problem !== undefined) return `vCPU ${vcpu}: ${problem}`
  }
  return undefined
}

const livesHold = ({ guest, hostTurns, resets }: Lives) =>
  Effect.gen(function*() {
    const activity = yield* Activity.make(hostTurns)
    const { observe, vm } = yield* activity.watch(ProgramCase.prepare(guest))
    let created: CreatedVm = vm

    for (const [life, moment] of resets.entries()) {
      yield* Effect.scoped(Effect.gen(function*() {
        const recording = yield* Trace.record(vm)
        const isTime = Deferred.makeUnsafe<void>()
        yield* Moments.at(vm, [moment], () => Deferred.succeed(isTime, undefined))
        const running = yield* created.start
        yield* Effect.raceFirst(Deferred.await(isTime), running.ended)
        const paused = yield* running.pauseWithin("1 minute")
        created = yield* paused.reset
        if (activity.running() > 0) return yield* Law.broken(`life ${life + 1}: a handler runs after the reset`)
        const problem = problemOfBeginning(guest, (yield* recording.trace).entries)
        if (problem !== undefined) return yield* Law.broken(`life ${life + 1}: ${problem}`)
      }))
    }

    const recording = yield* Trace.record(vm)
    const asked = (yield* observe({ _tag: "Halted" })).asked.length
    const running = yield* created.start
    const seen = yield* observe(yield* running.ended)
    const problem = ProgramCase.problemOf(guest, {
      ...seen,
      entries: (yield* recording.trace).entries,
      asked: seen.asked.slice(asked)
    })
    if (problem !== undefined) return yield* Law.broken(`the last life: ${problem}`)
  })

/** Requests that a client holds, resets, and late answers. */
const stepOf = (vcpus: number): Generator.Generator<SlotSteps.Step> => {
  const slot = Generator.integer(0, vcpus - 1)
  const submit = submits(slot)
  const upcall = Generator.constant<SlotSteps.Step>({ _tag: "Upcall", slot: undefined })
  const reply = valued("Reply")
  return Generator.oneOf<SlotSteps.Step>(
    submit,
    submit,
    upcall,
    upcall,
    reply,
    reply,
    Generator.constant({ _tag: "Reset" }),
    Generator.map(slot, (chosen): SlotSteps.Step => ({ _tag: "Take", slot: chosen })),
    valued("Complete")
  )
}

export const resetDrops = Law.make<Case>({
  number: 11,
  title: "a reset drops what is in flight once, and nothing of the old life completes in the new one",
  cases: (subject) =>
    guestsAlone<Case>(
      subject,
      Generator.map(
        slotCases(subject, stepOf),
        (slots): Case => ({ _tag: "ByHand", slots: { isOfVm: true, ...slots } })
      ),
      Generator.map(
        Generator.all({
          guest: Generator.map(ProgramCase.cases(subject), (guest) =>
            // Linux's module keeps PCI's address register over a reset.
            isAboveModule(subject) ? { ...guest, programs: guest.programs.map(ProgramCase.withoutConfig) } : guest),
          resets: Generator.array(Moments.generator, { minLength: 1, maxLength: 3 }),
          hostTurns: Generator.integer(0, 2)
        }),
        (lives): Case => ({ _tag: "Lives", ...lives })
      )
    ),
  show: (value) =>
    value._tag === "ByHand"
      ? SlotSteps.show(value.slots)
      : [
        ProgramCase.show(value.guest),
        `handlers take ${value.hostTurns} turns of the host`,
        ...value.resets.map((moment, life) => `life ${life + 1} is reset: ${Moments.format(moment)}`)
      ].join("\n"),
  holds: (value) => value._tag === "ByHand" ? SlotSteps.holds(value.slots) : livesHold(value)
})
