/** What a faulty line of upcalls does, and that no request is lost by it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Upcalls from "../../src/services/Upcalls.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as FaultyUpcalls from "../../src/testing/FaultyUpcalls.ts"
import { leftovers, machinesOver, nothing, runGuests, undisturbed } from "../support/adversaries.ts"
import { turns } from "../support/machines.ts"

const SEEDS = Array.from({ length: 30 }, (_, seed) => seed + 1)

const over = (options: FaultyUpcalls.Options) => machinesOver(FaultyUpcalls.layer(options))

const disturbed = (options: FaultyUpcalls.Options) =>
  Effect.gen(function*() {
    const result = yield* runGuests
    const line = yield* FaultyUpcalls.FaultyUpcalls
    return { result, faults: yield* line.faults, count: yield* line.count, left: yield* leftovers }
  }).pipe(Effect.provide(over(options), { local: true }))

const isFault = Schema.is(FaultyUpcalls.UpcallFault)

describe("a lossless line", () => {
  it.effect("is not seen by a guest or its devices", () =>
    Effect.gen(function*() {
      const expected = yield* undisturbed
      const seen = new Set<string>()
      for (const seed of SEEDS) {
        const run = yield* disturbed({ mode: "Lossless", seed, rate: seed % 3 === 0 ? 1 : 0.5 })
        assert.deepStrictEqual(run.result, expected, `seed ${seed}`)
        assert.deepStrictEqual(run.left, nothing, `seed ${seed}`)
        assert.isAbove(run.count, 5)
        for (const fault of run.faults) {
          assert.isTrue(isFault(fault), FaultyUpcalls.format(fault))
          seen.add(fault._tag)
        }
      }
      assert.sameMembers([...seen], ["Late", "Merged", "Doubled", "Spurious"])
    }))

  it.effect("does the same for the same seed", () =>
    Effect.gen(function*() {
      const first = yield* disturbed({ mode: "Lossless", seed: 4 })
      assert.deepStrictEqual((yield* disturbed({ mode: "Lossless", seed: 4 })).faults, first.faults)
      assert.notDeepEqual((yield* disturbed({ mode: "Lossless", seed: 5 })).faults, first.faults)
    }))

  it.effect("disturbs the VMs that are named, and no other", () =>
    Effect.gen(function*() {
      const line = yield* FaultyUpcalls.FaultyUpcalls
      yield* runGuests
      assert.strictEqual(yield* line.count, 0)
    }).pipe(Effect.provide(over({ mode: "Lossless", seed: 1, rate: 1, vms: [2] }), { local: true })))
})

describe("a lossy line", () => {
  it.effect("costs a rescan at most", () =>
    Effect.gen(function*() {
      const expected = yield* undisturbed
      const seen = new Set<string>()
      for (const seed of SEEDS) {
        const program = Effect.gen(function*() {
          const line = yield* FaultyUpcalls.FaultyUpcalls
          const running = yield* Effect.forkChild(runGuests, { startImmediately: true })
          // An interval after each time that everything stands still: no request takes a second one.
          for (let interval = 0; running.pollUnsafe() === undefined; interval++) {
            assert.isBelow(interval, 200)
            yield* turns(20)
            yield* TestClock.adjust("10 millis")
          }
          const result = yield* Effect.flatten(Effect.sync(() => running.pollUnsafe()!))
          for (const fault of yield* line.faults) {
            assert.isTrue(isFault(fault), FaultyUpcalls.format(fault))
            seen.add(fault._tag)
          }
          assert.isAbove(yield* line.count, 5)
          return { result, left: yield* leftovers }
        })
        const layer = machinesOver(FaultyUpcalls.layer({ mode: "Lossy", seed }), {
          machines: Layer.orDie(VirtualMachine.layerWith({ rescan: "10 millis" }))
        })
        const run = yield* Effect.provide(program, layer, { local: true })
        assert.deepStrictEqual(run.result, expected, `seed ${seed}`)
        assert.deepStrictEqual(run.left, nothing, `seed ${seed}`)
      }
      assert.sameMembers([...seen], ["Late", "Merged", "Doubled", "Spurious", "Held", "WrongHint", "Lost"])
    }))
})

/** A hypervisor's line by hand: what is raised below, and what is heard above. */
const byHand = (options: FaultyUpcalls.Options) =>
  Effect.gen(function*() {
    const below = Upcalls.make()
    const context = yield* Layer.build(
      FaultyUpcalls.layer(options).pipe(Layer.provide(Layer.succeed(Upcalls.Upcalls, below.service)))
    )
    return yield* Effect.gen(function*() {
      const heard: Array<Upcalls.UpcallHint | undefined> = []
      const upcalls = yield* Upcalls.Upcalls
      const line = yield* FaultyUpcalls.FaultyUpcalls
      return { heard, line, raise: below.raise, register: upcalls.register((hint) => void heard.push(hint)) }
    }).pipe(Effect.provide(context))
  })

const hint = (vcpu: number): Upcalls.UpcallHint => ({ vmId: 1, vcpu })

const always = (
  fault: FaultyUpcalls.UpcallFault["_tag"],
  maxTurns = 1
): FaultyUpcalls.Options => ({ mode: "Lossy", seed: 1, rate: 1, faults: { [fault]: 1 }, maxTurns })

describe("the line", () => {
  it.effect("scans when it is armed, whatever it does else, and again for each who registers", () =>
    Effect.gen(function*() {
      const { heard, line, register } = yield* byHand(always("Lost"))
      yield* register
      yield* register
      // The first alone, then both.
      assert.deepStrictEqual(heard, [undefined, undefined, undefined])
      assert.strictEqual(yield* line.count, 0)
    }))

  it.effect("is late by turns", () =>
    Effect.gen(function*() {
      const { heard, line, raise, register } = yield* byHand(always("Late", 5))
      yield* register
      heard.length = 0
      raise(hint(3))
      const [fault] = yield* line.faults
      assert.deepInclude(fault, { _tag: "Late", nth: 1, hint: hint(3) })
      assert.isTrue(fault?._tag === "Late")
      for (let turn = 0; turn < (fault as { readonly turns: number }).turns; turn++) {
        assert.deepStrictEqual(heard, [])
        yield* Effect.yieldNow
      }
      yield* Effect.yieldNow
      assert.deepStrictEqual(heard, [hint(3)])
    }))

  it.effect("makes one scan of several upcalls", () =>
    Effect.gen(function*() {
      const { heard, raise, register } = yield* byHand(always("Merged"))
      yield* register
      heard.length = 0
      raise(hint(0))
      raise(hint(1))
      raise(hint(2))
      assert.deepStrictEqual(heard, [])
      yield* turns(3)
      assert.deepStrictEqual(heard, [undefined])
      raise(hint(0))
      yield* turns(3)
      assert.deepStrictEqual(heard, [undefined, undefined])
    }))

  it.effect("says things twice, and things that are not", () =>
    Effect.gen(function*() {
      const doubling = yield* byHand(always("Doubled"))
      yield* doubling.register
      doubling.heard.length = 0
      doubling.raise(hint(1))
      yield* turns(3)
      assert.deepStrictEqual(doubling.heard, [hint(1), hint(1)])

      const inventing = yield* byHand(always("Spurious"))
      yield* inventing.register
      inventing.heard.length = 0
      inventing.raise(hint(1))
      yield* turns(3)
      assert.lengthOf(inventing.heard, 2)
      assert.deepInclude(inventing.heard, hint(1))

      const lying = yield* byHand(always("WrongHint"))
      yield* lying.register
      lying.heard.length = 0
      for (let i = 0; i < 100; i++) lying.raise(hint(1))
      assert.lengthOf(lying.heard, 100)
      assert.notDeepInclude(lying.heard, hint(1))
      assert.include(lying.heard, undefined)
      assert.isTrue(lying.heard.some((said) => said !== undefined && said.vcpu > 15))
      assert.isTrue(lying.heard.some((said) => said !== undefined && said.vmId !== 1))
      assert.deepStrictEqual(
        (yield* lying.line.faults).map((fault) => fault._tag === "WrongHint" && fault.said),
        lying.heard
      )
    }))

  it.effect("holds an upcall for so many others, or until it is told to stop", () =>
    Effect.gen(function*() {
      const { heard, line, raise, register } = yield* byHand(always("Held"))
      yield* register
      heard.length = 0
      raise(hint(0))
      assert.deepStrictEqual(heard, [])
      raise(hint(1))
      assert.deepStrictEqual(heard, [hint(0)])
      yield* line.stop
      assert.deepStrictEqual(heard, [hint(0), hint(1)])
      raise(hint(2))
      assert.deepStrictEqual(heard, [hint(0), hint(1), hint(2)])
    }))

  it.effect("loses upcalls, and numbers them anew when it is restarted", () =>
    Effect.gen(function*() {
      const { heard, line, raise, register } = yield* byHand(always("Lost"))
      yield* register
      heard.length = 0
      for (let vcpu = 0; vcpu < 4; vcpu++) raise(hint(vcpu))
      assert.deepStrictEqual(heard, [])
      assert.deepStrictEqual((yield* line.faults).map(({ nth }) => nth), [1, 2, 3, 4])
      yield* line.restart
      raise(undefined)
      assert.deepStrictEqual(yield* line.faults, [{ _tag: "Lost", nth: 1, hint: undefined }])
      assert.strictEqual(yield* line.report, "upcall 1, (no hint): Lost")
    }))

  it.effect("tells nobody any more when its scope is closed", () =>
    Effect.gen(function*() {
      const heard: Array<Upcalls.UpcallHint | undefined> = []
      const below = Upcalls.make()
      yield* Effect.gen(function*() {
        const upcalls = yield* Upcalls.Upcalls
        yield* upcalls.register((said) => void heard.push(said))
        heard.length = 0
        below.raise(hint(0))
      }).pipe(
        Effect.scoped,
        Effect.provide(
          FaultyUpcalls.layer(always("Late", 8)).pipe(Layer.provide(Layer.succeed(Upcalls.Upcalls, below.service)))
        )
      )
      yield* turns(20)
      below.raise(hint(1))
      assert.deepStrictEqual(heard, [])
    }))

  it.effect("is refused as a typed error when its options are none", () =>
    Effect.gen(function*() {
      for (
        const options of [
          { mode: "Lossless", seed: 1, faults: { Lost: 1 } },
          { mode: "Lossy", seed: 1, maxTurns: 0 },
          { mode: "Lossy", seed: 1, rate: -1 },
          { mode: "Late", seed: 1 }
        ]
      ) {
        const error = yield* Effect.flip(
          Effect.provide(Effect.void, over(options as FaultyUpcalls.Options), { local: true })
        )
        assert.instanceOf(error, FaultyUpcalls.AdversaryError, JSON.stringify(options))
      }
    }))
})
