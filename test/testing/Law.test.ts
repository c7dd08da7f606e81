import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as Law from "../../src/testing/Law.ts"

type Definition<A> = Law.Definition<A>

const lawOf = <A>(definition: Pick<Definition<A>, "cases" | "holds"> & Partial<Definition<A>>) =>
  Law.make<A>({ number: 99, title: "a law of this test", show: String, ...definition })

const numbers = () => Generator.integer(0, 1000)

const check = (law: Law.Law, options: Law.CheckOptions = {}) => Law.check(law, "Simulated", Simulated.layer, options)

const brokenOf = (outcome: Law.Outcome): Law.Broken =>
  outcome._tag === "Broken" ? outcome : assert.fail(`it is ${outcome._tag}`)

/** A guest that asks as often as the case says, and a law that allows it four times. */
const fourRequests = lawOf<number>({
  cases: () => Generator.integer(1, 40),
  show: (times) => `reads port 0x60 ${times} times`,
  holds: (times, { history }) =>
    Effect.gen(function*() {
      const program = GuestProgram.assembleAll([[{ _tag: "StringIn", port: 0x60, size: 1, count: times }]])
      const assembled = yield* Effect.fromResult(program)
      const machines = yield* VirtualMachine
      const vm = yield* machines.create({ memoryBytes: assembled.plan.memoryBytes })
      yield* GuestRun.load(vm, assembled)
      yield* (yield* vm.start).ended
      const reads = history.events().filter(({ _tag }) => _tag === "Read").length
      if (reads > 4) return yield* Law.broken(`${reads} requests`)
    })
})

describe("Law", () => {
  it.effect("that holds says of how many cases", () =>
    Effect.gen(function*() {
      let tried = 0
      const law = lawOf({ cases: numbers, holds: () => Effect.sync(() => void tried++) })
      assert.deepStrictEqual(yield* check(law, { runs: 30 }), { _tag: "Held", cases: 30 })
      assert.strictEqual(tried, 30)
    }))

  it.effect("that is broken is made small, with the slots of the smallest case alone", () =>
    Effect.gen(function*() {
      const broken = brokenOf(yield* check(fourRequests))
      assert.strictEqual(broken.problem, "5 requests")
      assert.strictEqual(broken.smallest, "reads port 0x60 5 times")
      assert.isAbove(broken.shrinks, 0)
      assert.strictEqual(broken.history.split("\n").filter((line) => line.includes("reads: read 1 byte")).length, 5)
      assert.include(broken.history, "Free -> Pending")
    }))

  it.effect("that is broken is broken in the same way again, by its token", () =>
    Effect.gen(function*() {
      const first = brokenOf(yield* check(fourRequests, { seed: "some seed" }))
      const again = brokenOf(yield* check(fourRequests, { replay: first.replay }))
      assert.strictEqual(again.smallest, first.smallest)
      assert.strictEqual(again.problem, first.problem)
      assert.strictEqual(again.history, first.history)
    }))

  it.effect("refuses a token that is none", () =>
    Effect.gen(function*() {
      const broken = brokenOf(yield* check(fourRequests, { replay: "no token" }))
      assert.match(broken.problem, /^this is no token/)
      assert.strictEqual(broken.smallest, "(no case)")
    }))

  it.effect("is shown with everything that is needed to go on", () =>
    Effect.gen(function*() {
      const broken = brokenOf(yield* check(fourRequests))
      const text = Law.format(fourRequests, "Simulated", broken, `replay ${broken.replay}`)
      assert.match(text, /^law 99 does not hold on Simulated: a law of this test\n {2}5 requests\n/)
      assert.include(
        text,
        `(case ${broken.cases} of seed 1, after ${broken.shrinks} shrinks):\n  reads port 0x60 5 times`
      )
      assert.include(text, "its slots:\n  page  slot  by")
      assert.isTrue(text.endsWith(`replay it:\n  replay ${broken.replay}`))
    }))

  it.effect("tries the same cases for the same seed, and others for another", () =>
    Effect.gen(function*() {
      const casesOf = (seed: number | string) =>
        Effect.gen(function*() {
          const seen: Array<number> = []
          yield* check(lawOf({ cases: numbers, holds: (value) => Effect.sync(() => void seen.push(value)) }), { seed })
          return seen
        })
      assert.deepStrictEqual(yield* casesOf(7), yield* casesOf(7))
      assert.notDeepEqual(yield* casesOf(7), yield* casesOf(8))
    }))

  it.effect("tries long cases too, where its generator has them", () =>
    Effect.gen(function*() {
      let longest = 0
      const law = lawOf<ReadonlyArray<number>>({
        cases: () => Generator.array(Generator.integer(0, 9)),
        holds: (list) => Effect.sync(() => void (longest = Math.max(longest, list.length)))
      })
      yield* check(law)
      assert.isAtLeast(longest, 25)
    }))

  it.effect("is skipped with the reason, and tried on nothing", () =>
    Effect.gen(function*() {
      const law = lawOf({
        cases: () => assert.fail("no case is wanted"),
        holds: () => Effect.void,
        skip: ({ name, profile }) => `${name} has ${profile.maxVcpus} vCPUs`
      })
      assert.deepStrictEqual(yield* check(law), { _tag: "Skipped", reason: "Simulated has 16 vCPUs" })
    }))

  it.effect("is broken by any failure, and by any defect", () =>
    Effect.gen(function*() {
      const failing = lawOf({ cases: numbers, holds: () => Effect.fail({ message: "there is no such thing" }) })
      assert.strictEqual(brokenOf(yield* check(failing)).problem, "there is no such thing")
      const dying = lawOf({ cases: numbers, holds: () => Effect.die(new Error("oops")) })
      assert.include(brokenOf(yield* check(dying)).problem, "oops")
      const interrupted = lawOf({ cases: numbers, holds: () => Effect.interrupt })
      assert.include(brokenOf(yield* check(interrupted)).problem, "interrupt")
      const throwing = lawOf({
        cases: numbers,
        holds: () => {
          throw new Error("thrown")
        }
      })
      assert.include(brokenOf(yield* check(throwing)).problem, "thrown")
    }))

  it.effect("that is broken only now and then says so", () =>
    Effect.gen(function*() {
      let tries = 0
      const law = lawOf({
        cases: () => Generator.constant(1),
        holds: () => Effect.suspend(() => ++tries === 1 ? Law.broken("the first time") : Effect.void)
      })
      assert.strictEqual(
        brokenOf(yield* check(law)).problem,
        "the first time (not every time: tried again, it held)"
      )
    }))

  const endless: ReadonlyArray<readonly [string, Effect.Effect<void>]> = [
    ["waits", Effect.never],
    ["waits, and does not let itself be interrupted", Effect.uninterruptible(Effect.never)],
    ["waits in a finalizer", Effect.ensuring(Effect.never, Effect.never)]
  ]
  for (const [what, wait] of endless) {
    it.effect(`is broken by a case that ${what} for ever`, () =>
      Effect.gen(function*() {
        const law = lawOf({ cases: () => Generator.constant(1), holds: () => wait })
        const checking = yield* Effect.forkChild(check(law, { patience: "3 seconds" }))
        for (let second = 0; second < 20; second++) {
          yield* TestClock.adjust("1 second")
          for (let turn = 0; turn < 20; turn++) yield* Effect.yieldNow
        }
        const broken = brokenOf(yield* Fiber.join(checking))
        assert.match(broken.problem, /^it did not end within/)
      }))
  }

  it.effect("gives each case a scope, which is closed before the next", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const law = lawOf({
        cases: () => Generator.constant("case"),
        holds: (value) =>
          Effect.acquireRelease(
            Effect.sync(() => void log.push(value)),
            (_, exit) => Effect.sync(() => void log.push(exit._tag))
          )
      })
      yield* check(law, { runs: 2 })
      assert.deepStrictEqual(log, ["case", "Success", "case", "Success"])
    }))

  it.effect("stops the case that it is at when it is interrupted", () =>
    Effect.gen(function*() {
      const began = yield* Deferred.make<void>()
      const ended = yield* Deferred.make<void>()
      const law = lawOf({
        cases: numbers,
        holds: () =>
          Effect.onInterrupt(
            Effect.andThen(Deferred.succeed(began, undefined), Effect.never),
            () => Deferred.succeed(ended, undefined)
          )
      })
      const checking = yield* Effect.forkChild(check(law))
      yield* Deferred.await(began)
      yield* Fiber.interrupt(checking)
      assert.isTrue(yield* Deferred.isDone(ended))
    }))

  it.effect("is tried on a hypervisor that cannot be built as that one fails", () =>
    Effect.gen(function*() {
      const unbuildable = Layer.effect(HypercallGate, Effect.fail("no such device")).pipe(
        Layer.provideMerge(Simulated.layer)
      )
      const law = lawOf({ cases: numbers, holds: () => Effect.void })
      const exit = yield* Effect.exit(Law.check(law, "none", unbuildable))
      assert.isTrue(Exit.isFailure(exit) && Cause.pretty(exit.cause).includes("no such device"))
    }))

  it.effect("sees the pages of its own subject only, from the begin of each case", () =>
    Effect.gen(function*() {
      const lengths: Array<number> = []
      const law = lawOf({
        cases: numbers,
        holds: (_, { history }) =>
          Effect.gen(function*() {
            lengths.push(history.count())
            const memory = yield* ServiceMemory
            const { address } = yield* memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } })
            const page = yield* Effect.fromResult(memory.page(address))
            page.store32(136, 1)
          })
      })
      yield* check(law, { runs: 3 })
      assert.deepStrictEqual(lengths, [0, 0, 0])
    }))
})
