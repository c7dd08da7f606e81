/** Handlers, observers and handles that do what they must not: no request is lost, and nobody else suffers. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, runToEnd, TEST_PORTS, turns } from "../support/machines.ts"

const HALTED = { _tag: "Halted" } as const

describe("a handler", () => {
  it.effect("that answers with what is no Effect has failed: all-ones, an event, and the guest goes on", () =>
    Effect.gen(function*() {
      const answers: ReadonlyArray<unknown> = [undefined, null, 5, "text", {}, Promise.resolve(1), () => 1]
      const vm = yield* boot(g.code(g.loop(answers.length, g.inp(0x100)), g.stop))
      let asked = 0
      const read: Array<IoValue> = []
      yield* vm.io.observe({ onComplete: (_client, _request, value) => read.push(value) })
      yield* vm.io.register({
        name: "untyped",
        ranges: [TEST_PORTS],
        handle: () => answers[asked++] as Effect.Effect<IoValue>
      })
      assert.deepStrictEqual(yield* runToEnd(vm), HALTED)
      assert.deepStrictEqual(read, answers.map(() => 0xff))
      const events = yield* vm.io.recentEvents
      assert.deepStrictEqual(events.map(({ _tag }) => _tag), answers.map(() => "HandlerFailed" as const))
    }).pipe(onSimulated()))

  it.effect("that closes its own VM before it first waits comes to its end", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.stop)), scope)
      const closed = yield* Deferred.make<void>()
      let isDeviceClosed = false
      yield* vm.attach(
        Effect.addFinalizer(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => isDeviceClosed = true)))
      )
      yield* vm.attach(vm.io.register({
        name: "closer",
        ranges: [TEST_PORTS],
        handle: () => Effect.as(Effect.andThen(Scope.close(scope, Exit.void), Deferred.succeed(closed, undefined)), 1)
      }))
      yield* vm.start
      yield* Deferred.await(closed)
      assert.isTrue(isDeviceClosed)
      assert.deepStrictEqual(yield* vm.state, { _tag: "Destroyed" })
    }).pipe(onSimulated()))

  it.effect("whose slot was cleared by others does not hide the request that came into it meanwhile", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.stop))
      const gate = yield* HypercallGate
      const late = yield* Deferred.make<IoValue>()
      yield* vm.io.register({ name: "late", ranges: [TEST_PORTS], handle: () => Deferred.await(late) })
      const running = yield* vm.start
      yield* turns(5)
      // Somebody else makes the hypercalls, and this program's own state does not know.
      for (const id of [HypercallId.PauseVm, HypercallId.ResetVm, HypercallId.StartVm]) {
        assert.strictEqual(yield* gate.call(id, BigInt(vm.id), 0n), 0)
      }
      yield* turns(5)
      yield* Deferred.succeed(late, 1)
      assert.deepStrictEqual(yield* running.ended, HALTED)
      assert.deepStrictEqual((yield* vm.io.counts)[0], { client: "late", requests: 2 })
    }).pipe(onSimulated()))
})

describe("an observer that throws", () => {
  it.effect("hears no more and is reported; the request, its client and other observers do not notice", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.loop(3, g.inp(0x100)), g.stop))
      const heard: Array<string> = []
      yield* vm.io.register({ name: "slow", ranges: [TEST_PORTS], handle: () => Effect.as(Effect.sleep(1), 9) })
      const failing = (when: "onRequest" | "onComplete") =>
        vm.io.observe({
          [when]: () => {
            heard.push(when)
            throw new Error(`in ${when}`)
          }
        })
      yield* failing("onRequest")
      yield* failing("onComplete")
      yield* vm.io.observe({ onComplete: (client, _request, value) => heard.push(`${client} ${String(value)}`) })
      assert.deepStrictEqual(yield* runToEnd(vm), HALTED)
      assert.deepStrictEqual(heard, ["onRequest", "onComplete", "slow 9", "slow 9", "slow 9"])
      assert.deepStrictEqual(yield* vm.io.recentEvents, [
        { _tag: "ObserverFailed", problem: "Error: in onRequest" },
        { _tag: "ObserverFailed", problem: "Error: in onComplete" }
      ])
    }).pipe(onSimulated()))
})

describe("a client whose scope was closed", () => {
  it.effect("gets no ranges through a handle that is left, and is not asked", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.stop))
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(
        vm.io.register({ name: "gone", ranges: [], handle: () => Effect.die("asked") }),
        scope
      )
      yield* Scope.close(scope, Exit.void)
      const error = yield* Effect.flip(client.addRange(TEST_PORTS))
      assert.deepStrictEqual(error.reason, { _tag: "Closed", client: "gone" })
      assert.deepStrictEqual(yield* runToEnd(vm), HALTED)
      assert.deepStrictEqual((yield* vm.io.recentEvents).map(({ _tag }) => _tag), ["Unhandled"])
    }).pipe(onSimulated()))
})

describe("two drains at once", () => {
  it.effect("one that gives up lets no request past the other", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.forever(g.inp(0x100))))
      const gate = yield* Deferred.make<IoValue>()
      let asked = 0
      yield* vm.io.register({
        name: "held",
        ranges: [TEST_PORTS],
        handle: () => {
          asked++
          return Deferred.await(gate)
        }
      })
      yield* vm.start
      yield* turns(5)
      const patient = yield* Effect.forkChild(vm.io.drain("1 day"), { startImmediately: true })
      const hasty = yield* Effect.forkChild(vm.io.drain("1 day"), { startImmediately: true })
      yield* Fiber.interrupt(hasty)
      yield* Deferred.succeed(gate, 1)
      yield* Fiber.join(patient)
      yield* turns(5)
      assert.strictEqual(asked, 1)
      yield* vm.io.proceed
      yield* turns(5)
      assert.isAbove(asked, 1)
    }).pipe(onSimulated()))
})
