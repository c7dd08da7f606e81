import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Scheduler, Schema } from "effect"
import { GuestTimeline } from "../../src/services/GuestTimeline.ts"

const EPOCH = 1_000_000_000_000
const MS = 1_000_000

const make = Effect.map(Scheduler.Scheduler, (host) => new GuestTimeline(EPOCH, host))

/** Runs an effect in a timeline's time and on its scheduler, until it waits. */
const inGuest = <A, E>(timeline: GuestTimeline, effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> =>
  Effect.runFork(
    effect.pipe(
      Effect.provideService(Clock.Clock, timeline.clock),
      Effect.provideService(Scheduler.Scheduler, timeline.scheduler)
    )
  )

const Delays = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 50 })))
  .check(Schema.isBetweenLength(1, 12))

describe("GuestTimeline", () => {
  it.effect.prop(
    "timers fire in the order of their time, equal ones as they were set, each at its own time",
    [Delays],
    (
      [delays]
    ) =>
      Effect.gen(function*() {
        const timeline = yield* make
        const fired: Array<readonly [index: number, at: number]> = []
        for (const [index, delay] of delays.entries()) {
          inGuest(timeline, Effect.andThen(Effect.sleep(delay), Effect.sync(() => fired.push([index, timeline.now]))))
        }
        timeline.advanceTo(100 * MS)
        const expected = delays.map((delay, index) => [index, delay * MS] as const).toSorted((a, b) =>
          a[1] - b[1] || a[0] - b[0]
        )
        assert.deepStrictEqual(fired, expected)
        assert.strictEqual(timeline.now, 100 * MS)
      })
  )

  it.effect.prop(
    "how time is cut into steps makes no difference",
    [Delays, Delays],
    ([delays, steps]) =>
      Effect.gen(function*() {
        const run = (advance: (timeline: GuestTimeline) => void) =>
          Effect.map(make, (timeline) => {
            const fired: Array<readonly [index: number, at: number]> = []
            for (const [index, delay] of delays.entries()) {
              inGuest(
                timeline,
                Effect.andThen(Effect.sleep(delay), Effect.sync(() => fired.push([index, timeline.now]))).pipe(
                  Effect.repeat({ times: 2 })
                )
              )
            }
            advance(timeline)
            timeline.advanceTo(500 * MS)
            return fired
          })
        const whole = yield* run(() => undefined)
        const cut = yield* run((timeline) => {
          for (const step of steps) timeline.advanceTo(timeline.now + step * MS / 7)
        })
        assert.deepStrictEqual(cut, whole)
        assert.strictEqual(whole.length, delays.length * 3)
      })
  )

  it.effect("work that is ready runs before time moves", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      const log: Array<string> = []
      inGuest(
        timeline,
        Effect.gen(function*() {
          yield* Effect.sleep(1)
          log.push(`woke at ${timeline.now / MS}`)
          yield* Effect.yieldNow
          yield* Effect.yieldNow
          log.push(`worked at ${timeline.now / MS}`)
          yield* Effect.forkChild(Effect.sync(() => log.push(`child at ${timeline.now / MS}`)))
          yield* Effect.sleep(1)
          log.push(`again at ${timeline.now / MS}`)
        })
      )
      timeline.advanceTo(10 * MS)
      assert.deepStrictEqual(log, ["woke at 1", "worked at 1", "child at 1", "again at 2"])
    }))

  it.effect("device work is run by drain without a turn of the host", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      let done = false
      inGuest(timeline, Effect.andThen(Effect.yieldNow, Effect.sync(() => done = true)))
      assert.isTrue(timeline.hasWork)
      assert.isFalse(done)
      timeline.drain()
      assert.isTrue(done)
      assert.isFalse(timeline.hasWork)
    }))

  it.effect("nobody drains: it runs on the host's next turn", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      const fiber = inGuest(timeline, Effect.as(Effect.yieldNow, "done"))
      assert.strictEqual(yield* Fiber.join(fiber), "done")
    }))

  it.effect("a sleep that is interrupted does not fire, and is no deadline", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      let fired = false
      const fiber = inGuest(timeline, Effect.andThen(Effect.sleep(5), Effect.sync(() => fired = true)))
      inGuest(timeline, Effect.sleep(9))
      assert.strictEqual(timeline.nextDeadline, 5 * MS)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(timeline.nextDeadline, 9 * MS)
      timeline.advanceTo(20 * MS)
      assert.isFalse(fired)
      assert.strictEqual(timeline.nextDeadline, Infinity)
    }))

  it.effect("a sleep for ever is no deadline; time that runs out stops at the last timer", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      let fired = 0
      inGuest(timeline, Effect.andThen(Effect.sleep(Duration.infinity), Effect.sync(() => fired++)))
      assert.strictEqual(timeline.nextDeadline, Infinity)
      inGuest(timeline, Effect.andThen(Effect.sleep(3), Effect.sync(() => fired++)))
      timeline.advanceTo(Infinity)
      assert.deepStrictEqual([fired, timeline.now], [1, 3 * MS])
    }))

  it.effect("time never goes back", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      timeline.advanceTo(5 * MS)
      timeline.advanceTo(2 * MS)
      assert.strictEqual(timeline.now, 5 * MS)
      // A sleep counts from now, an already passed moment comes at once.
      let at = -1
      inGuest(timeline, Effect.andThen(Effect.sleep(0), Effect.sync(() => at = timeline.now)))
      timeline.advanceTo(5 * MS)
      assert.strictEqual(at, 5 * MS)
    }))

  it.effect("the clock shows the epoch plus guest time, the monotonic clock guest time", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      timeline.advanceTo(1_500_000)
      const { clock } = timeline
      assert.strictEqual(clock.currentTimeMillisUnsafe(), EPOCH + 1.5)
      assert.strictEqual(clock.currentTimeNanosUnsafe(), BigInt(EPOCH) * 1_000_000n + 1_500_000n)
      assert.strictEqual(clock.monotonicTimeNanosUnsafe(), 1_500_000n)
      assert.strictEqual(yield* clock.currentTimeMillis, EPOCH + 1.5)
      assert.strictEqual(yield* clock.currentTimeNanos, BigInt(EPOCH) * 1_000_000n + 1_500_000n)
    }))

  it.effect("it tells of each timer", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      let told = 0
      timeline.onTimer = () => told++
      for (const delay of [10, 20, 5, 7, 5]) inGuest(timeline, Effect.sleep(delay))
      assert.strictEqual(told, 5)
    }))

  it.effect("timers that were cancelled leave nothing behind", () =>
    Effect.gen(function*() {
      const timeline = yield* make
      inGuest(timeline, Effect.sleep(1))
      // A device that bounds each answer by a timeout sets and cancels a timer for each.
      for (let i = 0; i < 2000; i++) {
        inGuest(timeline, Effect.timeout(Effect.void, 1000))
        yield* Fiber.interrupt(inGuest(timeline, Effect.sleep(500)))
      }
      const { timers } = timeline as unknown as { readonly timers: ReadonlyArray<unknown> }
      assert.strictEqual(timers.length, 1)
    }))
})
