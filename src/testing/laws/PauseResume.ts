/** Law 10: pausing at any point changes nothing of what the guest sees, and a paused VM stands still. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { SlotStateCode } from "../../domain/abi/IoRequestSlot.ts"
import { Resume } from "../../services/Hypervisor.ts"
import type { RunningVm } from "../../services/Vm.ts"
import { waitTurns } from "../adversaries/hostTurns.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import * as Activity from "./Activity.ts"
import * as Moments from "./Moments.ts"
import * as ProgramCase from "./ProgramCase.ts"

interface Case {
  readonly guest: ProgramCase.ProgramCase
  readonly pauses: ReadonlyArray<Moments.Moment>
  /** Turns of the host that each handler takes, beside what it takes anyway. */
  readonly hostTurns: number
}

const TURNS_PAUSED = 3

/** Slots that are claimed and not completed, by what was seen of the page. */
const claimed = (subject: Law.Subject): number => {
  const states = new Map<string, number>()
  for (const event of subject.history.events()) {
    if (event._tag === "Moved") states.set(`${event.page}.${event.slot}`, event.to)
  }
  return [...states.values()].filter((state) => state === SlotStateCode.Processing).length
}

const holds = ({ guest, hostTurns, pauses }: Case, subject: Law.Subject) =>
  Effect.gen(function*() {
    const resumption = Option.getOrThrow(Context.getOption(subject.context, Resume))
    const activity = yield* Activity.make(hostTurns)
    const { observe, vm } = yield* activity.watch(ProgramCase.prepare(guest))

    const checkStill = Effect.gen(function*() {
      if (activity.running() > 0) return yield* Law.broken("a handler runs though the VM is paused")
      if (claimed(subject) > 0) return yield* Law.broken("a request is held though the VM is paused")
      const memory = yield* vm.memory.read(0, vm.memoryBytes)
      const events = subject.history.count()
      yield* waitTurns(TURNS_PAUSED)
      const later = yield* vm.memory.read(0, vm.memoryBytes)
      if (subject.history.count() !== events) return yield* Law.broken("a slot moved while the VM was paused")
      if (memory.some((byte, at) => later[at] !== byte)) {
        return yield* Law.broken("the guest's memory changed while the VM was paused")
      }
    })

    const acts = yield* Moments.at(vm, pauses, () =>
      Effect.gen(function*() {
        const paused = yield* running.pauseWithin("1 minute")
        yield* checkStill
        running = yield* Effect.provideService(paused.resume, Resume, resumption)
      }))
    let running: RunningVm = yield* vm.start
    const end = yield* acts.unlessFailed(running.ended)
    yield* acts.finished
    const problem = ProgramCase.problemOf(guest, yield* observe(end))
    if (problem !== undefined) return yield* Law.broken(problem)
  })

export const pauseResume = Law.make<Case>({
  number: 10,
  title: "pause returns when nothing is under way, and pausing at any step changes nothing that the guest sees",
  skip: ({ context }) =>
    Option.isNone(Context.getOption(context, Resume))
      ? "this hypervisor cannot run a paused VM on (it does not provide Resume)"
      : undefined,
  cases: (subject) =>
    Generator.all({
      guest: ProgramCase.cases(subject),
      pauses: Generator.array(Moments.generator, { minLength: 1, maxLength: 4 }),
      hostTurns: Generator.integer(0, 2)
    }),
  show: ({ guest, hostTurns, pauses }) =>
    [
      ProgramCase.show(guest),
      `handlers take ${hostTurns} turns of the host`,
      ...pauses.map((moment) => `pause, and resume: ${Moments.format(moment)}`)
    ].join("\n"),
  holds
})
