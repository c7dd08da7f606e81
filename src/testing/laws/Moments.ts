/**
 * Points of a guest's run at which a law does something. They are counted in requests, so that they are the same in
 * every run.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { GuestTimes } from "../../services/Hypervisor.ts"
import type { IoDispatcher } from "../../services/IoDispatcher.ts"
import { waitTurns } from "../adversaries/hostTurns.ts"
import * as Generator from "../Generator.ts"
import type { Subject } from "../Law.ts"
import type { SlotHistory } from "../SlotHistory.ts"

const MAX_REQUESTS = 12
const MAX_TURNS = 3
// More than clients and vCPUs take for anything here, host turn by host turn.
const TURNS_OF_STILLNESS = 12

const MILLIS_IN_GUEST_TIME = 50
// There a vCPU may wait for its thread to start.
const MILLIS_IN_HOST_TIME = 3000

/** Milliseconds without a sign of the guest, after which it has stopped: more where another process runs its vCPUs. */
export const MillisOfStillness = Context.Reference<number | undefined>("upcall/testing/laws/MillisOfStillness", {
  defaultValue: () => undefined
})

/**
 * When the VM's request `count` (from 1 on) is asked or answered: in the stack of its vCPU, or so many turns of the
 * host later.
 */
export interface Moment {
  readonly count: number
  readonly side: "Asked" | "Answered"
  readonly turns: number
}

export const generator: Generator.Generator<Moment> = Generator.all({
  count: Generator.integer(1, MAX_REQUESTS),
  side: Generator.elementOf(["Asked", "Answered"] as const),
  turns: Generator.integer(0, MAX_TURNS)
})

export const format = ({ count, side, turns }: Moment): string =>
  `${turns === 0 ? "when" : `${turns} turns after`} request ${count} is ${side === "Asked" ? "asked" : "answered"}`

/**
 * Waits until nothing has happened to a slot for so many turns as nothing takes on its way, or until `isOver`. The
 * result tells which.
 */
export const untilStill = (
  history: SlotHistory,
  isOver: () => boolean
): Effect.Effect<"Still" | "Over"> =>
  Effect.gen(function*() {
    let seen = -1
    for (let still = 0; still < TURNS_OF_STILLNESS; still++) {
      if (isOver()) return "Over"
      const events = history.count()
      if (events !== seen) still = 0
      seen = events
      yield* Effect.yieldNow
    }
    return "Still"
  })

/**
 * Whether the guest goes on no more, before `isOver`. On a hypervisor in real time it takes more than turns to know, so
 * this is for what makes a case a broken one. It does, too, once `goesOn` says so.
 */
export const hasStopped = (
  { context, history }: Subject,
  vm: { readonly id: number },
  isOver: () => boolean,
  goesOn: Effect.Effect<boolean> = Effect.succeed(false)
): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const isInGuestTime = Context.get(context, GuestTimes).of(vm.id) !== undefined
    const patience = (yield* MillisOfStillness) ?? (isInGuestTime ? MILLIS_IN_GUEST_TIME : MILLIS_IN_HOST_TIME)
    while ((yield* untilStill(history, isOver)) === "Still") {
      const events = history.count()
      const isStill = () => !isOver() && history.count() === events
      for (let millis = 0; millis < patience && isStill(); millis++) {
        if (yield* goesOn) return false
        yield* Effect.sleep("1 millis")
      }
      if (isStill()) return true
    }
    return false
  })

/** What is done at moments. */
export interface Acts<E> {
  /** Waits for what was begun so far, and fails as it does. */
  readonly finished: Effect.Effect<void, E>
  /** The result of an effect, unless something that is done at a moment fails first. */
  readonly unlessFailed: <A, E1, R>(effect: Effect.Effect<A, E1, R>) => Effect.Effect<A, E | E1, R>
}

/** Does `act` at each moment that the guest comes to, one after the other. */
export const at = <E, R>(
  vm: { readonly io: IoDispatcher["Service"] },
  moments: ReadonlyArray<Moment>,
  act: (index: number) => Effect.Effect<void, E, R>
): Effect.Effect<Acts<E>, never, R | Scope.Scope> =>
  Effect.gen(function*() {
    const run = Effect.runForkWith(yield* Effect.context<R>())
    const oneAtATime = Semaphore.makeUnsafe(1)
    const begun: Array<Fiber.Fiber<void, E>> = []
    const failure = Deferred.makeUnsafe<never, E>()
    const counts = { Asked: 0, Answered: 0 }
    const perform = (moment: Moment, index: number) =>
      waitTurns(moment.turns).pipe(
        Effect.andThen(oneAtATime.withPermits(1)(act(index))),
        Effect.tapCause((cause) => Deferred.failCause(failure, cause))
      )
    const reach = (side: Moment["side"]) => {
      const count = ++counts[side]
      for (const [index, moment] of moments.entries()) {
        if (moment.side === side && moment.count === count) begun.push(run(perform(moment, index)))
      }
    }
    yield* vm.io.observe({ onRequest: () => reach("Asked"), onComplete: () => reach("Answered") })
    yield* Effect.addFinalizer(() => Fiber.interruptAll(begun))
    const joinFrom = (index: number): Effect.Effect<void, E> =>
      Effect.suspend(() => {
        const fiber = begun[index]
        return fiber === undefined ? Effect.void : Effect.andThen(Fiber.join(fiber), joinFrom(index + 1))
      })
    return {
      finished: joinFrom(0),
      unlessFailed: (effect) => Effect.raceFirst(effect, Deferred.await(failure))
    }
  })
