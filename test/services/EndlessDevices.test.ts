/** Devices and handlers that never come to an end: neither the guest nor the host starves, and time stays in order. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Scheduler, Scope } from "effect"
import { GuestTimeline } from "../../src/services/GuestTimeline.ts"
import type { CreatedVm } from "../../src/services/Vm.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, runToEnd, TEST_PORTS, turns } from "../support/machines.ts"

const accesses = g.code(g.loop(50, g.inp(0x100)), g.stop)

/** Answers after a millisecond of guest time. */
const slowClient = (vm: CreatedVm) =>
  vm.io.register({ name: "slow", ranges: [TEST_PORTS], handle: () => Effect.as(Effect.sleep(1), 7) })

const endless: ReadonlyArray<readonly [what: string, device: Effect.Effect<void>]> = [
  ["yields", Effect.forever(Effect.yieldNow)],
  ["computes", Effect.forever(Effect.void)],
  ["sleeps for no time", Effect.forever(Effect.sleep(0))],
  ["sleeps for less than no time", Effect.forever(Effect.sleep(-1))],
  ["sleeps for less than a nanosecond", Effect.forever(Effect.sleep(Duration.millis(1e-9)))]
]

describe("a device that for ever", () => {
  for (const [what, device] of endless.slice(0, 4)) {
    it.effect(`${what} does not stop its guest, whose run stays the same`, () => {
      const run = Effect.gen(function*() {
        const vm = yield* boot(accesses)
        const times: Array<number> = []
        yield* slowClient(vm)
        yield* vm.io.observe({ onComplete: () => times.push(vm.machine.time.clock.currentTimeMillisUnsafe()) })
        yield* vm.attach(vm.machine.fork(device))
        assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
        return times
      }).pipe(onSimulated())
      return Effect.gen(function*() {
        const times = yield* run
        assert.strictEqual(times.length, 50)
        assert.deepStrictEqual(yield* run, times)
      })
    })
  }

  for (const [what, device] of endless) {
    it.effect(`${what} leaves the host its turns, and ends with its VM`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.stop)), scope)
        yield* vm.attach(slowClient(vm))
        yield* vm.attach(vm.machine.fork(device))
        yield* vm.start
        yield* turns(5)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* vm.state, { _tag: "Destroyed" })
      }).pipe(onSimulated()))
  }
})

describe("a handler that never answers", () => {
  it.effect("leaves the host its turns although it has always something to do", () =>
    Effect.gen(function*() {
      const vm = yield* boot(accesses)
      yield* vm.io.register({ name: "busy", ranges: [TEST_PORTS], handle: () => Effect.forever(Effect.yieldNow) })
      const running = yield* vm.start
      yield* turns(5)
      assert.strictEqual((yield* Effect.flip(running.pauseWithin(0))).reason._tag, "NotDrained")
    }).pipe(onSimulated()))
})

describe("guest time", () => {
  it.effect("goes on beside work that is never done, and waits for any other", () =>
    Effect.gen(function*() {
      const timeline = new GuestTimeline(0, yield* Scheduler.Scheduler)
      let left = 1000
      const finite = (): void => {
        if (left-- > 0) schedule(finite)
      }
      const dispatcher = timeline.scheduler.makeDispatcher()
      const schedule = (task: () => void) => dispatcher.scheduleTask(task, 0)
      schedule(finite)
      timeline.drain()
      assert.isFalse(timeline.hasWork)
      assert.strictEqual(left, -1)

      let rounds = 0
      let isEndless = true
      const spin = (): void => {
        rounds++
        if (isEndless) schedule(spin)
      }
      schedule(spin)
      assert.isTrue(timeline.hasWork)
      timeline.drain()
      assert.isFalse(timeline.hasWork)
      const before = rounds
      timeline.advanceTo(500)
      assert.deepStrictEqual([timeline.now, rounds - before], [500, 1])
      isEndless = false
      yield* Effect.yieldNow
    }))

  it.effect("too many timers for one step are fired over several, in order", () =>
    Effect.gen(function*() {
      const timeline = new GuestTimeline(0, yield* Scheduler.Scheduler)
      let fired = 0
      const sleeper = Effect.forever(
        Effect.andThen(timeline.clock.sleep(Duration.nanos(1n)), Effect.sync(() => fired++))
      )
      const fiber = Effect.runFork(Effect.provideService(sleeper, Scheduler.Scheduler, timeline.scheduler))
      let steps = 0
      for (; timeline.now < 50_000; steps++) timeline.advanceTo(50_000)
      assert.deepStrictEqual([timeline.now, fired, steps], [50_000, 50_000, 4])
      fiber.interruptUnsafe()
    }))
})

describe("closing a VM", () => {
  it.effect("does not wait for guest time that will not come: devices and handlers that end with a sleep", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const vm = yield* Scope.provide(boot(accesses), scope)
      const log: Array<string> = []
      const late = (name: string) => Effect.andThen(Effect.sleep("1 hour"), Effect.sync(() => log.push(name)))
      yield* vm.attach(vm.machine.fork(Effect.ensuring(Effect.never, late("device"))))
      yield* vm.attach(vm.io.register({
        name: "handler",
        ranges: [TEST_PORTS],
        handle: () => Effect.ensuring(Effect.never, late("handler"))
      }))
      yield* vm.start
      yield* turns(5)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(log, ["handler", "device"])
      assert.deepStrictEqual(yield* vm.state, { _tag: "Destroyed" })
    }).pipe(onSimulated()))
})
