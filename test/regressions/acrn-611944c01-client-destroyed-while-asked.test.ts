/**
 * ACRN commits 611944c01 and 19fb5fa03. The device model destroyed its I/O client while the thread that serves it was
 * still attaching to it or notifying a completion. Waiting for that thread first was the first repair; a reset that did
 * not come from the guest then hung, because the thread was waiting for a request, and the order was turned round again.
 *
 * Here a client may be destroyed at any point, also by its own handler while that starts. Its request is completed once,
 * nothing waits for it any more, and a handler that goes on afterwards has nothing to complete.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { ports } from "../../src/domain/IoRange.ts"
import { constant, makeDispatcher } from "../support/dispatcher.ts"
import { turns } from "../support/machines.ts"

const RANGE = ports(0x100, 0x1ff)

/** A client whose handler closes the client's own scope in its first step, and then does `after`. */
const closesItself = (after: Effect.Effect<number>) =>
  Effect.gen(function*() {
    const setup = makeDispatcher()
    const scope = yield* Scope.make()
    yield* Scope.provide(
      setup.io.register({
        name: "closes itself",
        ranges: [RANGE],
        handle: () => Effect.andThen(Scope.close(scope, Exit.void), after)
      }),
      scope
    )
    return setup
  })

describe("ACRN 611944c01, 19fb5fa03: a client is destroyed while it is being asked", () => {
  it.effect("by its own handler, which then answers: the request was completed with all-ones, once", () =>
    Effect.gen(function*() {
      const { ask, io, notified } = yield* closesItself(Effect.succeed(1))
      assert.strictEqual(ask({}), 0xff)
      assert.deepStrictEqual(notified, [0])
      assert.deepStrictEqual((yield* io.recentEvents).map(({ _tag }) => _tag), ["Abandoned"])
    }))

  it.effect("by its own handler, which then never answers: the slot goes on, and no drain waits for it", () =>
    Effect.gen(function*() {
      const { ask, io } = yield* closesItself(Effect.never)
      assert.strictEqual(ask({}), 0xff)
      yield* io.register(constant("next", 2, RANGE))
      assert.strictEqual(ask({}), 2)
      const drained = yield* Effect.forkChild(io.drain("1 day"), { startImmediately: true })
      yield* turns(3)
      assert.isDefined(drained.pollUnsafe())
      yield* Fiber.interrupt(drained)
    }))
})
