/** How long a client may hold a request: at its deadline the request is over, whatever its handler does. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scheduler, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { DispatchEvent } from "../../src/domain/DispatchEvent.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import { GuestTimeline } from "../../src/services/GuestTimeline.ts"
import type { IoClientOptions } from "../../src/services/IoDispatcher.ts"
import { makeDispatcher } from "../support/dispatcher.ts"
import { Complete, type FakePage, Pending, Processing } from "../support/FakePage.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, runToEnd, TEST_PORTS, turns } from "../support/machines.ts"

const DEADLINE = 10

const make = (timeline?: GuestTimeline) => {
  const setup = makeDispatcher(4, timeline)
  const ask = (vcpu = 0, request: Parameters<FakePage["submit"]>[1] = { address: 0x100 }) => setup.ask(request, vcpu)
  return { ...setup, ask }
}

const client = (
  handle: IoClientOptions["handle"],
  options: Partial<IoClientOptions> = {}
): IoClientOptions => ({ name: "slow", ranges: [TEST_PORTS], deadline: DEADLINE, handle, ...options })

const eventsOf = ({ io }: ReturnType<typeof make>) =>
  Effect.map(
    io.recentEvents,
    (events) =>
      events.map((event) =>
        event._tag === "DeadlinePassed" ? `${event._tag} ${event.client} ${event.deadlineMs}` : event._tag
      )
  )

const Millis = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 }))

describe("a deadline", () => {
  it.effect.prop(
    "is kept by who answers by then; the request of who does not is over at that moment",
    [Millis, Millis],
    (
      [takes, deadline]
    ) =>
      Effect.gen(function*() {
        const setup = make()
        let interrupted = 0
        yield* setup.io.register(client(
          () => Effect.onInterrupt(Effect.as(Effect.sleep(takes), 0x42), () => Effect.sync(() => interrupted++)),
          { deadline }
        ))
        assert.isUndefined(setup.ask())
        const isLate = takes > deadline
        const over = Math.min(takes, deadline)
        yield* TestClock.adjust(over - 1)
        assert.strictEqual(setup.fake.state(0), Processing)
        yield* TestClock.adjust(1)
        assert.strictEqual(setup.take(), isLate ? 0xff : 0x42)
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(setup.notified, [0], "once")
        assert.strictEqual(interrupted, isLate ? 1 : 0)
        assert.deepStrictEqual(yield* eventsOf(setup), isLate ? [`DeadlinePassed slow ${deadline}`] : [])
        assert.isTrue((yield* setup.io.recentEvents).every(Schema.is(DispatchEvent)))
      })
  )

  it.effect("drops a write", () =>
    Effect.gen(function*() {
      const setup = make()
      yield* setup.io.register(client(() => Effect.never))
      setup.ask(0, { address: 0x100, direction: Slot.DirectionCode.Write, value: 5 })
      yield* TestClock.adjust(DEADLINE)
      assert.deepStrictEqual([setup.fake.state(0), setup.fake.answer(0)[0]], [Complete, 5])
      assert.deepStrictEqual(yield* eventsOf(setup), ["DeadlinePassed slow 10"])
    }))

  it.effect("can be the default client's", () =>
    Effect.gen(function*() {
      const setup = make()
      const { deadline, handle, name } = client(() => Effect.never)
      yield* setup.io.registerDefault({ name, handle, deadline: deadline! })
      setup.ask()
      yield* TestClock.adjust(DEADLINE)
      assert.strictEqual(setup.take(), 0xff)
    }))

  it.effect("is each request's own", () =>
    Effect.gen(function*() {
      const setup = make()
      yield* setup.io.register(client(() => Effect.never))
      setup.ask(0)
      yield* TestClock.adjust(DEADLINE - 1)
      setup.ask(1)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual([setup.take(0), setup.take(1)], [0xff, undefined])
      yield* TestClock.adjust(DEADLINE - 1)
      assert.strictEqual(setup.take(1), 0xff)
    }))

  it.effect("is not the next request's: what a late handler answers is nobody's", () =>
    Effect.gen(function*() {
      const setup = make()
      const gates = [yield* Deferred.make<IoValue>(), yield* Deferred.make<IoValue>()]
      let asked = 0
      yield* setup.io.register(client(() => Effect.uninterruptible(Deferred.await(gates[asked++]!))))
      setup.ask()
      yield* TestClock.adjust(DEADLINE)
      assert.strictEqual(setup.take(), 0xff)
      setup.ask()
      yield* Deferred.succeed(gates[0]!, 1)
      yield* turns(3)
      assert.strictEqual(setup.fake.state(0), Processing, "held by the second handler")
      yield* Deferred.succeed(gates[1]!, 2)
      yield* turns(3)
      assert.strictEqual(setup.take(), 2)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* eventsOf(setup), ["DeadlinePassed slow 10"])
      assert.deepStrictEqual(setup.notified, [0, 0])
    }))

  it.effect("serves what the hypervisor put into the slot while it was held", () =>
    Effect.gen(function*() {
      const setup = make()
      let asked = 0
      yield* setup.io.register(client(() => asked++ === 0 ? Effect.never : Effect.succeed(7)))
      setup.ask()
      setup.fake.setState(0, Pending)
      yield* TestClock.adjust(DEADLINE)
      assert.strictEqual(setup.take(), 7)
      assert.deepStrictEqual(yield* eventsOf(setup), ["ForeignStep"])
    }))

  it.effect("that is none is refused, and nothing is registered", () =>
    Effect.gen(function*() {
      const setup = make()
      const bad: ReadonlyArray<readonly [unknown, number]> = [[0, 0], [-1, -1], [Infinity, Infinity], ["soon", NaN], [
        null,
        NaN
      ]]
      for (const [deadline, deadlineMs] of bad) {
        const options = client(() => Effect.never, { deadline: deadline as number })
        const { name, handle } = options
        for (
          const registering of [
            setup.io.register(options),
            setup.io.registerDefault({ name, handle, deadline: deadline as number })
          ]
        ) {
          const { reason } = yield* Effect.flip(Effect.asVoid(registering))
          assert.deepStrictEqual(reason, { _tag: "BadDeadline", client: "slow", deadlineMs })
        }
      }
      assert.deepStrictEqual(yield* setup.io.counts, [])
      yield* setup.io.register(client(() => Effect.succeed(1)))
      assert.strictEqual(setup.ask(), 1)
    }))
})

describe("the timer of a deadline", () => {
  const timed = Effect.gen(function*() {
    const timeline = new GuestTimeline(0, yield* Scheduler.Scheduler)
    let timers = 0
    timeline.onTimer = () => timers++
    return { timeline, setup: make(timeline), timers: () => timers }
  })

  it.effect("is set when a request is held, and not for one that is answered at once", () =>
    Effect.gen(function*() {
      const { setup, timeline, timers } = yield* timed
      const answers = [Effect.succeed(7), Effect.sync(() => 7), Effect.fail("no" as never), Effect.never]
      let asked = 0
      yield* setup.io.register(client(() => answers[asked++]!))
      assert.deepStrictEqual([setup.ask(), setup.ask(), setup.ask()], [7, 7, 0xff])
      assert.deepStrictEqual([timers(), timeline.nextDeadline], [0, Infinity])
      setup.ask()
      assert.deepStrictEqual([timers(), timeline.nextDeadline], [1, DEADLINE * 1e6])
    }))

  it.effect("counts the VM's time where it has one", () =>
    Effect.gen(function*() {
      const { setup, timeline } = yield* timed
      yield* setup.io.register(client(() => Effect.never))
      setup.ask()
      yield* TestClock.adjust("1 day")
      timeline.advanceTo(DEADLINE * 1e6 - 1)
      assert.isUndefined(setup.take())
      timeline.advanceTo(DEADLINE * 1e6)
      assert.strictEqual(setup.take(), 0xff)
    }))

  const ends: ReadonlyArray<
    readonly [string, (setup: ReturnType<typeof make>, gate: Deferred.Deferred<IoValue>) => Effect.Effect<unknown>]
  > = [
    ["an answer", (_, gate) => Deferred.succeed(gate, 1)],
    ["a failure", (_, gate) => Deferred.die(gate, "broken")],
    ["a reset", ({ dispatcher }) => dispatcher.forgetAll],
    ["the end of the VM", ({ dispatcher }) => dispatcher.abandonAll]
  ]
  for (const [what, end] of ends) {
    it.effect(`goes with ${what}`, () =>
      Effect.gen(function*() {
        const { setup, timeline } = yield* timed
        const gate = yield* Deferred.make<IoValue>()
        yield* setup.io.register(client(() => Deferred.await(gate)))
        setup.ask()
        yield* end(setup, gate)
        timeline.drain()
        assert.strictEqual(timeline.nextDeadline, Infinity)
        assert.notInclude(yield* eventsOf(setup), "DeadlinePassed slow 10")
      }))
  }

  it.effect("goes with its client", () =>
    Effect.gen(function*() {
      const { setup, timeline } = yield* timed
      const scope = yield* Scope.make()
      yield* Scope.provide(setup.io.register(client(() => Effect.never)), scope)
      setup.ask()
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      timeline.drain()
      yield* Fiber.join(closing)
      assert.strictEqual(timeline.nextDeadline, Infinity)
      assert.deepStrictEqual(yield* eventsOf(setup), ["Abandoned"])
    }))
})

describe("a handler that does not end at its deadline", () => {
  const stubborn = (gate: Deferred.Deferred<void>) =>
    client(() => Effect.as(Effect.uninterruptible(Deferred.await(gate)), 0x42))

  it.effect("holds no drain back", () =>
    Effect.gen(function*() {
      const setup = make()
      const gate = yield* Deferred.make<void>()
      yield* setup.io.register(stubborn(gate))
      setup.ask()
      const draining = yield* Effect.forkChild(setup.io.drain("1 hour"), { startImmediately: true })
      yield* TestClock.adjust(DEADLINE)
      yield* Fiber.join(draining)
      yield* Deferred.succeed(gate, undefined)
    }))

  it.effect("holds no pause and no reset of its VM back", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.stop))
      const gate = yield* Deferred.make<void>()
      yield* vm.io.register(stubborn(gate))
      const running = yield* vm.start
      yield* running.ended
      const paused = yield* running.pause
      yield* paused.reset
      yield* Deferred.succeed(gate, undefined)
    }).pipe(onSimulated()))

  it.effect("is waited for by the close of its client, whose guest goes on meanwhile", () =>
    Effect.gen(function*() {
      const setup = make()
      const gate = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      yield* Scope.provide(setup.io.register(stubborn(gate)), scope)
      setup.ask()
      yield* TestClock.adjust(DEADLINE)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* turns(3)
      assert.isUndefined(closing.pollUnsafe())
      assert.strictEqual(setup.take(), 0xff)
      assert.strictEqual(setup.ask(), 0xff, "its ranges are nobody's already")
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(closing)
    }))

  it.effect("is waited for by the close of its VM, before the VM's devices go", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.stop)), scope)
      const gate = yield* Deferred.make<void>()
      let isDeviceGone = false
      yield* vm.attach(Effect.addFinalizer(() => Effect.sync(() => isDeviceGone = true)))
      yield* vm.attach(vm.io.register(stubborn(gate)))
      yield* runToEnd(vm)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* turns()
      assert.deepStrictEqual([(yield* vm.state)._tag, isDeviceGone], ["Destroyed", false])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(closing)
      assert.isTrue(isDeviceGone)
    }).pipe(onSimulated()))
})

describe("a guest whose device is stuck", () => {
  it.effect("reads all-ones at the deadline of guest time, and the other vCPUs do not wait for it", () =>
    Effect.gen(function*() {
      const vm = yield* boot(
        g.code(g.inp(0x100), g.store(0x5000), g.stop),
        g.code(g.loop(20, g.inp(0x180)), g.stop)
      )
      const log: Array<string> = []
      yield* vm.io.observe({
        onComplete: (name) => log.push(`${name} ${vm.machine.time.clock.monotonicTimeNanosUnsafe() >= 5_000_000n}`)
      })
      yield* vm.io.register(client(() => Effect.never, {
        name: "stuck",
        ranges: [IoRange.ports(0x100, 0x10f)],
        deadline: "5 millis"
      }))
      yield* vm.io.register(client(() => Effect.succeed(1), { name: "well", ranges: [IoRange.ports(0x180, 0x18f)] }))
      assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
      assert.deepStrictEqual(log, [...Array.from({ length: 20 }, () => "well false"), "stuck true"])
      assert.strictEqual((yield* vm.memory.read32(0x5000)) & 0xff, 0xff)
      assert.deepStrictEqual((yield* vm.io.recentEvents).map(({ _tag }) => _tag), ["DeadlinePassed"])
    }).pipe(onSimulated()))
})
