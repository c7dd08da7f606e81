/**
 * Law 12, with a faulty line between the hypervisor and its VMs. What the line does not lose needs nothing else; what
 * it loses is found by the rescan, whose clock the law moves only when nothing else goes on.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import { GuestTimeline } from "../../services/GuestTimeline.ts"
import type { Hypervisor } from "../../services/Hypervisor.ts"
import * as Upcalls from "../../services/Upcalls.ts"
import * as VirtualMachine from "../../services/VirtualMachine.ts"
import * as FaultyUpcalls from "../FaultyUpcalls.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import { isAboveModule } from "./aboveModule.ts"
import * as Moments from "./Moments.ts"
import { machinesOver } from "./over.ts"
import * as ProgramCase from "./ProgramCase.ts"

/** `arming`: when a second handler is armed, which must be told to scan although the hypervisor has nothing to say. */
interface Case {
  readonly guest: ProgramCase.ProgramCase
  readonly line: { readonly mode: "Lossless" | "Lossy"; readonly seed: number; readonly rate: number }
  readonly arming: Moments.Moment
}

const MAX_TURNS_LATE = 2
const RESCAN_MS = 1000
const RESCAN_NS = RESCAN_MS * 1_000_000
const LONGEST_ANSWER_NS = 1_000_000

const holds = ({ arming, guest, line }: Case, subject: Law.Subject) =>
  Effect.gen(function*() {
    const hypervisor = yield* Effect.context<Hypervisor>()
    const faulty = yield* Effect.provideContext(
      Layer.build(FaultyUpcalls.layer({ ...line, maxTurns: MAX_TURNS_LATE })),
      hypervisor
    )
    const time = new GuestTimeline(0, yield* Scheduler.Scheduler)
    const machines = line.mode === "Lossless"
      ? yield* machinesOver(Context.merge(hypervisor, faulty))
      : yield* machinesOver(
        Context.merge(hypervisor, faulty),
        Layer.orDie(VirtualMachine.layerWith({ rescan: RESCAN_MS }))
      ).pipe(Effect.provideService(Clock.Clock, time.clock))
    const { observe, vm } = yield* Effect.provideService(
      ProgramCase.prepare(guest),
      VirtualMachine.VirtualMachine,
      machines
    )

    let scans = 0
    const acts = yield* Moments.at(vm, [arming], () =>
      Effect.gen(function*() {
        yield* Upcalls.Upcalls.use((upcalls) =>
          upcalls.register((hint) => {
            if (hint === undefined) scans++
          })
        )
        // Inside of an upcall the scan comes when that one is over.
        yield* Effect.yieldNow
        if (scans === 0) return yield* Law.broken("a handler that was armed was not told to scan")
      }))

    const running = yield* vm.start
    const ended = yield* Effect.forkScoped(running.ended, { startImmediately: true })
    const isOver = () => ended.pollUnsafe() !== undefined
    const isPending = Effect.map(vm.requests.inspect, ({ slots }) => slots.some(({ state }) => state === "Pending"))
    const broken = (problem: string) =>
      Effect.flatMap(
        Context.get(faulty, FaultyUpcalls.FaultyUpcalls).report,
        (report) => Law.broken(report === "" ? problem : `${problem}\nwhat happened to upcalls:\n${report}`)
      )

    if (line.mode === "Lossless" && (yield* Moments.hasStopped(subject, vm, isOver))) {
      return yield* broken("the guest waits, though no upcall was lost")
    }
    while ((yield* Moments.untilStill(subject.history, isOver)) === "Still") {
      if (!(yield* isPending)) {
        const events = subject.history.count()
        // Where guest time is the host's, the clients' delays pass on this clock too.
        time.advanceTo(time.now + LONGEST_ANSWER_NS)
        // A guest in real time may ask meanwhile; its upcall may be lost, and a client may begin to wait.
        const goesOn = Effect.map(isPending, (isIt) => isIt || subject.history.count() !== events)
        if (yield* Moments.hasStopped(subject, vm, isOver, goesOn)) {
          return yield* broken("the guest waits for no request")
        }
        continue
      }
      const before = subject.history.count()
      time.advanceTo(time.now + RESCAN_NS)
      if (subject.history.count() === before) {
        return yield* broken("a request is still pending after a whole rescan interval")
      }
    }
    yield* acts.finished
    const problem = ProgramCase.problemOf(guest, yield* observe(yield* Fiber.join(ended)))
    if (problem !== undefined) return yield* broken(problem)
  })

export const upcallDelivery = Law.make<Case>({
  number: 12,
  title: "an upcall may be late, merged or repeated, and one that is lost costs a rescan interval at most",
  cases: (subject) =>
    Generator.all({
      guest: ProgramCase.cases(subject),
      line: Generator.all({
        // Above a module a slot tells nobody whether the module or this program has still to look at it.
        mode: isAboveModule(subject)
          ? Generator.constant("Lossless" as const)
          : Generator.elementOf(["Lossless", "Lossy"] as const),
        seed: Generator.integer(0, 999),
        rate: Generator.elementOf([1, 0.5, 0.2])
      }),
      arming: Moments.generator
    }),
  show: ({ arming, guest, line }) =>
    [
      ProgramCase.show(guest),
      `upcalls: ${line.mode}, seed ${line.seed}, rate ${line.rate}`,
      `a second handler is armed ${Moments.format(arming)}`
    ].join("\n"),
  holds
})
