/** Upcalls that never come: with a rescan interval each delays its request by one interval at most. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Result, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Simulated from "../../src/layers/Simulated.ts"
import { ServiceMemory, type ServicePage } from "../../src/services/ServiceMemory.ts"
import { Upcalls } from "../../src/services/Upcalls.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as g from "../support/guest.ts"
import { boot, recorder, turns } from "../support/machines.ts"

/** Every upcall with a hint is lost; the scans that arming and merging ask for come. */
const losesUpcalls = Layer.effect(
  Upcalls,
  Effect.map(Upcalls, (inner) =>
    Upcalls.of({
      register: (handler) => inner.register((hint) => hint === undefined ? handler(hint) : undefined),
      stream: inner.stream
    }))
)

/** Pages that count how often they are looked at, and that throw when told to. */
const watchedPages = (watch: { looks: number; broken: number | undefined }) =>
  Layer.effect(
    ServiceMemory,
    Effect.map(ServiceMemory, (inner) => {
      let pages = 0
      return ServiceMemory.of({
        ...inner,
        page: (address) =>
          Result.map(inner.page(address), (page): ServicePage => {
            const id = pages++
            return {
              load32: (offset) => {
                watch.looks++
                if (watch.broken === id) throw new Error("the page is gone")
                return page.load32(offset)
              },
              store32: (offset, value) => page.store32(offset, value),
              fetchRequest: (offset, into) => page.fetchRequest(offset, into),
              storeRequest: (offset, from) => page.storeRequest(offset, from)
            }
          })
      })
    })
  )

const rescanning = (options: VirtualMachine.VirtualMachineOptions, watch = { looks: 0, broken: undefined }) =>
  VirtualMachine.layerWith(options).pipe(
    Layer.provideMerge(Layer.mergeAll(losesUpcalls, watchedPages(watch))),
    Layer.provideMerge(Simulated.layer),
    Layer.fresh
  )

const endless = g.code(g.forever(g.inp(0x100)))

describe("a rescan interval", () => {
  const Millis = Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 100_000 }))

  it.effect.prop(
    "bounds what a lost upcall delays: each interval serves the request that it found",
    [Millis],
    ([every]) =>
      Effect.gen(function*() {
        const vm = yield* boot(endless)
        const seen = yield* recorder(vm)
        yield* vm.start
        for (let rounds = 0; rounds < 5; rounds++) {
          yield* turns(4)
          assert.strictEqual(seen.length, rounds, "every upcall is lost")
          yield* TestClock.adjust(every - 1)
          assert.strictEqual(seen.length, rounds)
          yield* TestClock.adjust(1)
          assert.strictEqual(seen.length, rounds + 1, "one interval, no more")
        }
      }).pipe(Effect.scoped, Effect.provide(rescanning({ rescan: every }), { local: true })),
    { arbitrary: { runs: 15 } }
  )

  it.effect("is off unless it is asked for: a request whose upcall was lost waits for the next scan", () =>
    Effect.gen(function*() {
      const vm = yield* boot(endless)
      const seen = yield* recorder(vm)
      yield* vm.start
      yield* turns()
      yield* TestClock.adjust("1 day")
      assert.strictEqual(seen.length, 0)
      yield* vm.io.drain()
      yield* vm.io.proceed
      assert.strictEqual(seen.length, 1)
    }).pipe(Effect.scoped, Effect.provide(rescanning({}), { local: true })))

  it.effect("takes nothing of a VM that is drained or paused", () =>
    Effect.gen(function*() {
      const vm = yield* boot(endless)
      const seen = yield* recorder(vm)
      const running = yield* vm.start
      yield* turns()
      yield* running.pause
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(seen.length, 0)
      assert.strictEqual((yield* vm.requests.inspect).slots[0]?.state, "Pending")
    }).pipe(Effect.scoped, Effect.provide(rescanning({ rescan: "1 second" }), { local: true })))

  it.effect("goes on for the other VMs when the page of one cannot be looked at (acrn-kernel #247)", () => {
    const watch: { looks: number; broken: number | undefined } = { looks: 0, broken: undefined }
    return Effect.gen(function*() {
      yield* boot(endless)
      const vm = yield* boot(endless)
      const seen = yield* recorder(vm)
      yield* vm.start
      yield* turns()
      watch.broken = 0
      for (let rounds = 1; rounds < 4; rounds++) {
        yield* TestClock.adjust("1 second")
        assert.strictEqual(seen.length, rounds)
        yield* turns(4)
      }
      watch.broken = undefined
    }).pipe(Effect.scoped, Effect.provide(rescanning({ rescan: "1 second" }, watch as never), { local: true }))
  })

  it.effect("ends with the layer", () =>
    Effect.gen(function*() {
      const watch = { looks: 0, broken: undefined }
      const scope = yield* Scope.make()
      const context = yield* Scope.provide(Layer.build(rescanning({ rescan: "1 second" }, watch)), scope)
      yield* Scope.provide(boot(endless), scope).pipe(Effect.provideContext(context))
      const before = watch.looks
      yield* TestClock.adjust("1 second")
      assert.strictEqual(watch.looks, before + 1)
      yield* Scope.close(scope, Exit.void)
      const after = watch.looks
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(watch.looks, after)
    }))

  it.effect("that is none is refused before anything is armed", () =>
    Effect.gen(function*() {
      const bad: ReadonlyArray<unknown> = [0, -1, NaN, Infinity, "soon", null]
      for (const rescan of bad) {
        const error = yield* Effect.flip(
          Effect.scoped(Layer.build(rescanning({ rescan: rescan as number })))
        )
        assert.strictEqual(error._tag, "VirtualMachineError")
        assert.strictEqual(error.reason._tag, "BadOption")
        if (error.reason._tag === "BadOption") assert.strictEqual(error.reason.option, "rescan")
      }
    }))
})
