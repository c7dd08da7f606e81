/**
 * What clients do to each other and to themselves while requests are on their way: laws 3, 9 and 13.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { actors, advance, step, stepWhen } from "../../../src/testing/Explorer.ts"
import { type Client, make } from "../World.ts"
import { A, B, C, quickA, scenario, slowA, slowB, slowWorld } from "./Scenario.ts"

const complete = scenario(
  "complete",
  "each vCPU asks each client",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, B], [B + 1, A + 1]] })
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const clientDestroy = scenario(
  "client destroy",
  "a client that takes its time to clean up is released, and another one gets its ports",
  Effect.gen(function*() {
    const { a, guest } = yield* slowWorld({ programs: [[A, B], [A + 1]] }, { cleansUp: true })
    yield* guest.start(guest.vm)
    yield* actors({
      controller: Effect.gen(function*() {
        yield* step("A is released")
        yield* a.release
        yield* guest.client({ ...slowA, name: "C" })
      })
    })
    yield* guest.finish
  })
)

const takeOver = scenario(
  "client destroy and register",
  "another client gets the ports of one that is being released, at any moment of it",
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: [[A, A + 1], [A + 2]] })
    const a = yield* guest.client({ ...slowA, cleansUp: true })
    yield* guest.start(guest.vm)
    yield* actors({
      old: Effect.andThen(step("A is released"), a.release),
      new: Effect.gen(function*() {
        yield* step("C asks for the ports of A")
        // Refused while A has them.
        yield* Effect.ignore(guest.client({ ...slowA, name: "C" }))
      })
    })
    yield* guest.finish
  })
)

const destroyWhileStarting = scenario(
  "client destroy inside of a handler",
  "a handler wakes, in its own stack, who releases its client",
  Effect.gen(function*() {
    const called = yield* Deferred.make<void>()
    const { a, guest } = yield* slowWorld({ programs: [[A, A + 1], [A + 2, B]] }, {
      cleansUp: true,
      meanwhile: () => Deferred.succeed(called, undefined)
    })
    yield* guest.start(guest.vm)
    yield* actors({ controller: Effect.andThen(Deferred.await(called), a.release) })
    yield* guest.finish
  })
)

const rangeMove = scenario(
  "range move",
  "a client's ports move away, and another client's to where they were",
  Effect.gen(function*() {
    const { a, b, guest } = yield* slowWorld({ programs: [[A, B], [C]] })
    yield* guest.start(guest.vm)
    yield* actors({
      controller: Effect.gen(function*() {
        yield* step("A moves")
        yield* a.move(C, C + 0xf)
        yield* step("B moves to where A was")
        yield* b.move(A, A + 0xf)
      })
    })
    yield* guest.finish
  })
)

const moveInHandler = scenario(
  "range move inside of a handler",
  "a handler moves the ports that it is asked for, as a PCI device does",
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: [[A, C], [A + 1, C + 1]] })
    const a: Client = yield* guest.client({
      ...slowA,
      meanwhile: ({ port }) => Effect.suspend(() => port === A ? a.move(C, C + 0xf) : Effect.void)
    })
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const ownPorts = scenario(
  "own ports inside of a handler",
  "a handler's work is an access to its own client, which it waits for before it answers",
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: [[A, B], [A + 1, B + 1]] })
    let isNested = false
    yield* guest.client({
      ...slowA,
      meanwhile: ({ port }) =>
        Effect.suspend(() => {
          const nested = () => guest.ledger.accesses.find((access) => access.port === A + 1)
          if (port !== A || isNested || nested() !== undefined) return Effect.void
          isNested = true
          return Effect.andThen(
            guest.act(1),
            stepWhen("A has its own answer", () => nested()?.end === "Answered")
          )
        })
    })
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const deadline = scenario(
  "deadline",
  "a client's deadline runs out while it may answer, and while it cleans up",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, A + 1], [B]] }, { deadline: "10 millis", cleansUp: true })
    yield* guest.start(guest.vm)
    yield* actors({ time: Effect.andThen(step("ten milliseconds pass"), advance("10 millis")) })
    yield* guest.finish
  })
)

const quick = scenario(
  "answers at once",
  "a client that answers at once beside one that takes its time",
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: [[A, B, A + 1], [B + 1, A + 2]], upcalls: "Late" })
    yield* guest.client(quickA)
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

export const clients = [
  complete,
  quick,
  clientDestroy,
  takeOver,
  destroyWhileStarting,
  rangeMove,
  moveInHandler,
  ownPorts,
  deadline
]
