/**
 * Linux `drivers/virt/acrn/ioreq.c`, `ioreq_task`. When a client's handler returns an error, the thread that serves the
 * client leaves its inner loop without completing the request or clearing its bit. The outer loop then finds that a
 * request is pending and calls the handler again, and so on: one CPU of the Service VM is busy, and the vCPU waits.
 *
 * Here a handler that fails, dies or throws has answered: the request reads all-ones, the handler is not called again for
 * it, and an event tells what went wrong.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ports } from "../../src/domain/IoRange.ts"
import { ALL_ONES, constant, makeDispatcher } from "../support/dispatcher.ts"
import { turns } from "../support/machines.ts"

const failures: ReadonlyArray<readonly [name: string, handle: () => Effect.Effect<number, unknown>]> = [
  ["fails at once", () => Effect.fail("no")],
  ["fails after a while", () => Effect.andThen(Effect.yieldNow, Effect.fail("no"))],
  ["dies at once", () => Effect.sync(() => JSON.parse("{"))],
  ["dies after a while", () => Effect.andThen(Effect.yieldNow, Effect.die(new Error("no")))],
  ["throws", () => {
    throw new Error("no")
  }],
  ["answers with no Effect", () => undefined as never]
]

describe("a handler's error makes a busy loop", () => {
  for (const [name, handle] of failures) {
    it.effect(`a handler that ${name} is called once, and has answered`, () =>
      Effect.gen(function*() {
        const { ask, dispatcher, io, notified, take } = makeDispatcher()
        let calls = 0
        yield* io.register({
          name: "broken",
          ranges: [ports(0x100, 0x1ff)],
          handle: () => {
            calls++
            return handle()
          }
        })
        yield* io.register(constant("sound", 7, ports(0x200, 0x2ff)))
        const atOnce = ask({ size: 4 })
        yield* turns(3)
        assert.strictEqual(atOnce ?? take(), ALL_ONES)
        for (let i = 0; i < 3; i++) dispatcher.serve(undefined)
        assert.deepStrictEqual([calls, notified], [1, [0]])
        assert.deepStrictEqual((yield* io.recentEvents).map(({ _tag }) => _tag), ["HandlerFailed"])
        assert.strictEqual(ask({ address: 0x200 }), 7)
      }))
  }
})
