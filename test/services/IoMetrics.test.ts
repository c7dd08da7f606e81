/** Metrics of a VM's requests: against what an observer of its own heard. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Metric, Scheduler, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as IoRange from "../../src/domain/IoRange.ts"
import { Dispatcher } from "../../src/services/dispatch/Dispatcher.ts"
import { GuestTimeline } from "../../src/services/GuestTimeline.ts"
import * as IoMetrics from "../../src/services/IoMetrics.ts"
import { FakePage } from "../support/FakePage.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, runToEnd, TEST_PORTS } from "../support/machines.ts"

const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

const read = (vm: string, client: string) =>
  Effect.all({
    requests: Metric.value(Metric.withAttributes(IoMetrics.requests, { vm, client })),
    latency: Metric.value(Metric.withAttributes(IoMetrics.latency, { vm, client }))
  })

/** A dispatcher, and one request after another, each of which takes what it is told to, in nanoseconds. */
const make = Effect.gen(function*() {
  const fake = new FakePage()
  const dispatcher = new Dispatcher(fake, 2, () => 0, undefined)
  const timeline = new GuestTimeline(0, yield* Scheduler.Scheduler)
  timeline.advanceTo(1e15)
  const next = { nanos: 0 }
  yield* dispatcher.service.register({
    name: "timed",
    ranges: [TEST_PORTS],
    handle: () =>
      Effect.sync(() => {
        timeline.advanceTo(timeline.now + next.nanos)
      })
  })
  const ask = (nanos: number, address = 0x100) => {
    next.nanos = nanos
    fake.submit(0, { address })
    dispatcher.serve(0)
  }
  return { fake, dispatcher, clock: timeline.clock, ask, vm: { name: "vm", io: dispatcher.service } }
})

describe("IoMetrics", () => {
  const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
  const Latency = Schema.TaggedUnion({
    Short: { nanos: upTo(300) },
    Long: { nanos: upTo(20_000_000_000) },
    AroundBoundary: { power: Schema.Int.check(Schema.isBetween({ minimum: 7, maximum: 34 })) }
  })
  const nanosOf = (latency: typeof Latency.Type): ReadonlyArray<number> =>
    latency._tag === "AroundBoundary" ? [-1, 0, 1].map((off) => 2 ** latency.power + off) : [latency.nanos]

  it.effect.prop("what is flushed in batches is what single updates would have given", [
    Arbitrary.array(Arbitrary.schema(Latency), { maxLength: 60 }),
    Arbitrary.array(Arbitrary.schema(Schema.Natural), { maxLength: 4 })
  ], ([latencies, flushes]) =>
    fresh(Effect.gen(function*() {
      const { ask, clock, vm } = yield* make
      const scope = yield* Scope.make()
      yield* Scope.provide(IoMetrics.observe(vm, { every: "1 second", clock }), scope)
      const expected = Metric.withAttributes(IoMetrics.latency, { vm: "expected" })
      const at = new Set(flushes.map((place) => place % (latencies.length + 1)))
      for (const [i, each] of latencies.entries()) {
        for (const nanos of nanosOf(each)) {
          ask(nanos)
          yield* Metric.update(expected, nanos)
        }
        if (at.has(i)) yield* TestClock.adjust("1 second")
      }
      yield* Scope.close(scope, Exit.void)
      const { latency, requests } = yield* read("vm", "timed")
      assert.deepStrictEqual(latency, yield* Metric.value(expected))
      assert.strictEqual(requests.count, latency.count)
    })), { arbitrary: { runs: 100 } })

  it.effect("counts per client, those that nobody owns too, and goes on counting in the next scope", () =>
    fresh(Effect.gen(function*() {
      const { ask, vm } = yield* make
      for (let round = 0; round < 2; round++) {
        yield* Effect.scoped(Effect.gen(function*() {
          yield* IoMetrics.observe(vm)
          ask(1)
          ask(1)
          ask(1, 0x900)
        }))
        ask(1)
      }
      assert.strictEqual((yield* read("vm", "timed")).requests.count, 4)
      assert.strictEqual((yield* read("vm", "(nobody)")).requests.count, 2)
    })))

  it.effect("is flushed at each interval of the program's clock, and when the scope closes", () =>
    fresh(Effect.gen(function*() {
      const { ask, vm } = yield* make
      const scope = yield* Scope.make()
      yield* Scope.provide(IoMetrics.observe(vm, { every: 50 }), scope)
      const counted = Effect.map(read("vm", "timed"), ({ requests }) => requests.count)
      ask(1)
      yield* TestClock.adjust(49)
      assert.strictEqual(yield* counted, 0)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* counted, 1)
      ask(1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* counted, 2)
      ask(1)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* counted, 2, "nothing is measured or flushed any more")
    })))

  it.effect("a request that is never completed is counted, and has no latency", () =>
    fresh(Effect.gen(function*() {
      const { dispatcher, fake, vm } = yield* make
      yield* dispatcher.service.register({
        name: "stuck",
        ranges: [IoRange.ports(0x900, 0x900)],
        handle: () => Effect.never
      })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* IoMetrics.observe(vm)
        fake.submit(1, { address: 0x900 })
        dispatcher.serve(1)
        yield* dispatcher.forgetAll
      }))
      const { latency, requests } = yield* read("vm", "stuck")
      assert.deepStrictEqual([requests.count, latency.count], [1, 0])
    })))

  it.effect("one that was under way when the observation began has no latency", () =>
    fresh(Effect.gen(function*() {
      const { dispatcher, fake, vm } = yield* make
      yield* dispatcher.service.register({
        name: "slow",
        ranges: [IoRange.ports(0x900, 0x900)],
        handle: () => Effect.sleep(10)
      })
      fake.submit(1, { address: 0x900 })
      dispatcher.serve(1)
      yield* Effect.scoped(Effect.andThen(IoMetrics.observe(vm), TestClock.adjust(10)))
      const { latency, requests } = yield* read("vm", "slow")
      assert.deepStrictEqual([requests.count, latency.count], [0, 0])
    })))

  it.effect("with the VM's clock latencies are in guest time", () =>
    fresh(Effect.gen(function*() {
      const vm = yield* boot(g.code(g.loop(5, g.inp(0x100)), g.inp(0x180), g.stop))
      yield* vm.io.register({ name: "slow", ranges: [IoRange.ports(0x100, 0x100)], handle: () => Effect.sleep(3) })
      yield* vm.io.register({ name: "fast", ranges: [IoRange.ports(0x180, 0x180)], handle: () => Effect.succeed(1) })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* IoMetrics.observe(vm, { clock: vm.machine.time.clock })
        yield* runToEnd(vm)
      }))
      const { latency } = yield* read(vm.name, "slow")
      assert.deepStrictEqual([latency.count, latency.min, latency.max, latency.sum], [5, 3e6, 3e6, 15e6])
      assert.strictEqual((yield* read(vm.name, "fast")).latency.sum, 0)
    })).pipe(onSimulated()))

  it.effect("an interval that is none is refused, and nothing is observed", () =>
    fresh(Effect.gen(function*() {
      const { ask, vm } = yield* make
      for (const every of [0, -1, NaN, Infinity, "soon"] as ReadonlyArray<unknown> as ReadonlyArray<number>) {
        const { message, reason } = yield* Effect.flip(Effect.scoped(IoMetrics.observe(vm, { every })))
        assert.strictEqual(reason._tag, "BadInterval")
        assert.match(message, /^metrics cannot be flushed every \S+ ms; give a positive, finite duration$/)
      }
      ask(1)
      assert.deepStrictEqual(yield* Metric.snapshot, [])
    })))
})
