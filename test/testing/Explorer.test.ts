import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Layer, Random, Schema } from "effect"
import * as Explorer from "../../src/testing/Explorer.ts"

/** A fiber of so many marked steps. */
const steps = (name: string, count: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let i = 1; i <= count; i++) yield* Explorer.step(`${name}${i}`)
  })

const factorial = (n: number): number => n <= 1 ? 1 : n * factorial(n - 1)

/** In how many orders fibers of so many steps each can run. */
const multinomial = (...counts: ReadonlyArray<number>): number =>
  counts.reduce((result, count) => result / factorial(count), factorial(counts.reduce((sum, count) => sum + count, 0)))

/** Two increments that read and write in two steps each. */
const lostUpdate = Effect.gen(function*() {
  let count = 0
  const increment = (name: string) =>
    Effect.gen(function*() {
      yield* Explorer.step(`${name} reads`)
      const read = count
      yield* Explorer.step(`${name} writes`)
      count = read + 1
    })
  yield* Explorer.actors({ a: increment("a"), b: increment("b") })
  if (count !== 2) return yield* Effect.die(new Error(`the count is ${count}`))
})

const problemOf = (report: Explorer.Report): string => report.failure?.problem ?? ""

describe("Explorer", () => {
  describe("runs every order, each once", () => {
    for (const [n, m] of [[0, 0], [1, 0], [1, 1], [1, 4], [2, 3], [3, 3], [4, 4], [5, 3], [6, 5]] as const) {
      it.effect(`of two fibers of ${n} and ${m} steps: C(${n + m}, ${n})`, () =>
        Effect.gen(function*() {
          const orders = new Set<string>()
          const scenario = Effect.gen(function*() {
            const order: Array<string> = []
            const marked = (name: string, count: number) =>
              Effect.gen(function*() {
                for (let i = 0; i < count; i++) {
                  yield* Explorer.step(name)
                  order.push(name)
                }
              })
            yield* Explorer.actors({ a: marked("a", n), b: marked("b", m) })
            orders.add(order.join(""))
          })
          const report = yield* Explorer.explore(scenario)
          assert.deepStrictEqual(report, { schedules: multinomial(n, m), isComplete: true, failure: undefined })
          assert.strictEqual(orders.size, report.schedules, "no order is run twice")
        }))
    }

    for (const counts of [[1, 1, 1], [2, 2, 2], [3, 2, 1], [1, 2, 4]] as const) {
      it.effect(`of three fibers of ${counts.join(", ")} steps: the multinomial`, () =>
        Effect.gen(function*() {
          const [a, b, c] = counts
          const report = yield* Explorer.explore(
            Explorer.actors({ a: steps("a", a), b: steps("b", b), c: steps("c", c) })
          )
          assert.strictEqual(report.schedules, multinomial(a, b, c))
        }))
    }

    it.effect("of fibers that wake each other through a Deferred", () =>
      Effect.gen(function*() {
        // b's steps come after a's first; then it is one order of the rest out of C(2 + 2, 2).
        const scenario = Effect.gen(function*() {
          const wake = yield* Deferred.make<void>()
          yield* Explorer.actors({
            a: Effect.andThen(
              steps("first", 1),
              Effect.andThen(Deferred.succeed(wake, undefined), steps("a", 2))
            ),
            b: Effect.andThen(Deferred.await(wake), steps("b", 2))
          })
        })
        assert.strictEqual((yield* Explorer.explore(scenario)).schedules, multinomial(2, 2))
      }))

    it.effect("of choices that are made at once", () =>
      Effect.gen(function*() {
        const seen = new Set<string>()
        const scenario = Effect.gen(function*() {
          const exploration = yield* Explorer.Exploration
          const choices = [
            exploration.choose(["x", "y", "z"]),
            exploration.choose(["only"]),
            exploration.choose(["", "v"])
          ]
          seen.add(choices.join(""))
        })
        assert.strictEqual((yield* Explorer.explore(scenario)).schedules, 6)
        assert.strictEqual(seen.size, 6)
      }))

    it.effect("up to a limit", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Explorer.actors({ a: steps("a", 4), b: steps("b", 4) }), { limit: 10 })
        assert.deepStrictEqual(report, { schedules: 10, isComplete: false, failure: undefined })
      }))
  })

  describe("a failure", () => {
    it.effect("names its steps in order and replays from its schedule", () =>
      Effect.gen(function*() {
        const { failure } = yield* Explorer.explore(lostUpdate)
        assert.deepStrictEqual(failure?.steps, ["a reads", "b reads", "a writes", "b writes"])
        const again = yield* Explorer.replay(lostUpdate, failure?.schedule ?? "")
        assert.deepStrictEqual(again.failure?.steps, failure?.steps)
        assert.include(problemOf(again), "the count is 1")
        assert.isUndefined((yield* Explorer.replay(lostUpdate, "01")).failure)
      }))

    it.effect("is text that can be read, and run again", () =>
      Effect.gen(function*() {
        const text = Explorer.format({ schedule: "01", steps: ["a reads", "b reads"], problem: "the count is 1" })
        assert.strictEqual(
          text,
          "the count is 1\n  1. a reads\n  2. b reads\nreplay: Explorer.replay(scenario, \"01\")"
        )
      }))

    it.effect("is also what an actor says is wrong", () =>
      Effect.gen(function*() {
        const scenario = Effect.gen(function*() {
          const exploration = yield* Explorer.Exploration
          yield* Explorer.step("first")
          exploration.violate("law 3: twice")
          exploration.violate("a later problem")
          yield* Explorer.step("never taken")
        })
        const { failure } = yield* Explorer.explore(scenario)
        assert.deepStrictEqual(failure, { schedule: "", steps: ["first"], problem: "law 3: twice" })
      }))

    it.effect("is found by random schedules, the same by the same seed", () =>
      Effect.gen(function*() {
        const run = Explorer.random(lostUpdate, { seed: 5, schedules: 100 })
        const report = yield* run
        assert.include(problemOf(report), "the count is 1")
        assert.deepStrictEqual((yield* run).failure?.schedule, report.failure?.schedule)
        const again = yield* Explorer.replay(lostUpdate, report.failure?.schedule ?? "")
        assert.deepStrictEqual(again.failure?.steps, report.failure?.steps)
      }))

    it.effect("random schedules that are the same are counted once", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.random(Explorer.actors({ a: steps("a", 2), b: steps("b", 1) }), {
          seed: 1,
          schedules: 200
        })
        assert.deepStrictEqual(report, { schedules: multinomial(2, 1), isComplete: false, failure: undefined })
      }))
  })

  describe("a schedule that is none", () => {
    for (
      const [schedule, problem] of [
        ["0!", "is no schedule"],
        ["9", "choice 1 is 9, but there were 2 alternatives"],
        ["0000000000", "the run ended before it"]
      ] as const
    ) {
      it.effect(`"${schedule}": ${problem}`, () =>
        Effect.gen(function*() {
          const scenario = Explorer.actors({ a: steps("a", 1), b: steps("b", 1) })
          assert.include(problemOf(yield* Explorer.replay(scenario, schedule)), problem)
        }))
    }
  })

  describe("a run that hangs", () => {
    it.effect("because an actor waits for what never comes", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Explorer.actors({ waiter: Effect.never, other: steps("other", 1) }))
        assert.strictEqual(problemOf(report), "hang: nothing can go on; not at their end: waiter")
      }))

    it.effect("because a step never becomes possible", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Explorer.stepWhen("the answer comes", () => false))
        assert.strictEqual(
          problemOf(report),
          "hang: nothing can go on; steps that never became possible: the answer comes"
        )
      }))

    it.effect("because a fiber that nobody waits for is left", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Effect.forkDetach(Explorer.stepWhen("left over", () => false)))
        assert.include(problemOf(report), "left over")
      }))

    it.effect("because steps follow each other without end", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Effect.forever(Explorer.step("again")), { maxSteps: 50 })
        assert.include(problemOf(report), "the steps do not end")
        assert.strictEqual(report.failure?.steps.length, 50)
      }))

    it.effect("because a fiber yields without end", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Effect.forever(Effect.yieldNow))
        assert.include(problemOf(report), "fibers take turns without end")
      }))

    it.effect("because nothing but a timer goes on", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Effect.forever(Effect.sleep("1 second")))
        assert.include(problemOf(report), "only timers fire")
      }))

    it.effect("also one that cannot be interrupted", () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(Effect.uninterruptible(Effect.never))
        assert.include(problemOf(report), "nothing can go on")
      }))
  })

  describe("time", () => {
    it.effect("moves only when nothing else can", () =>
      Effect.gen(function*() {
        let isTimedOut = false
        const scenario = Effect.gen(function*() {
          const start = yield* Clock.currentTimeMillis
          const answered = yield* Effect.exit(Effect.timeout(steps("slow", 3), "1 milli"))
          isTimedOut ||= Exit.isFailure(answered)
          yield* Effect.sleep("1 hour")
          assert.strictEqual((yield* Clock.currentTimeMillis) - start, 3_600_000)
        })
        assert.deepStrictEqual(yield* Explorer.explore(scenario), {
          schedules: 1,
          isComplete: true,
          failure: undefined
        })
        assert.isFalse(isTimedOut)
      }))

    it.effect("runs a deadline into steps where an actor moves it", () =>
      Effect.gen(function*() {
        const ends = new Set<string>()
        const scenario = Effect.gen(function*() {
          yield* Explorer.actors({
            answer: Effect.timeout(steps("answer", 1), "10 millis").pipe(
              Effect.matchEffect({
                onFailure: () => Effect.sync(() => ends.add("late")),
                onSuccess: () => Effect.sync(() => ends.add("in time"))
              })
            ),
            time: Effect.andThen(Explorer.step("time passes"), Explorer.advance("10 millis"))
          })
        })
        const report = yield* Explorer.explore(scenario)
        assert.isTrue(report.isComplete)
        assert.deepStrictEqual([...ends].toSorted(), ["in time", "late"])
      }))

    it.effect("fires timers in their order, also those of one moment", () =>
      Effect.gen(function*() {
        const scenario = Effect.gen(function*() {
          const order: Array<string> = []
          const after = (ms: number, name: string) =>
            Effect.andThen(Effect.sleep(ms), Effect.sync(() => order.push(name)))
          yield* Explorer.actors({ a: after(2, "a"), b: after(1, "b"), c: after(2, "c"), d: after(0, "d") })
          assert.deepStrictEqual(order, ["d", "b", "a", "c"])
        })
        assert.isUndefined((yield* Explorer.explore(scenario)).failure)
      }))
  })

  describe("each run", () => {
    it.effect("builds the scenario's layers anew", () =>
      Effect.gen(function*() {
        class Counter extends Context.Service<Counter, { count: number }>()("test/Counter") {}
        const layer = Layer.sync(Counter, () => ({ count: 0 }))
        const scenario = Effect.gen(function*() {
          const counter = yield* Counter
          yield* Explorer.actors({ a: steps("a", 1), b: steps("b", 1) })
          counter.count++
          assert.strictEqual(counter.count, 1)
        }).pipe(Effect.provide(layer))
        // Beside a layer that is built for all of them, as in a test that shares one.
        const report = yield* Explorer.explore(scenario).pipe(Effect.provide(layer))
        assert.deepStrictEqual(report, { schedules: 2, isComplete: true, failure: undefined })
      }))

    it.effect("draws the same random numbers", () =>
      Effect.gen(function*() {
        const seen = new Set<number>()
        const scenario = Effect.gen(function*() {
          seen.add(yield* Random.next)
          yield* Explorer.actors({ a: steps("a", 1), b: steps("b", 1) })
        })
        yield* Explorer.explore(scenario)
        assert.strictEqual(seen.size, 1)
      }))

    it.effect("that differs from the one before by more than its choices is told", () =>
      Effect.gen(function*() {
        let runs = 0
        const scenario = Effect.suspend(() => {
          runs++
          return Explorer.actors(
            runs === 1
              ? { a: steps("a", 2), b: steps("b", 2) }
              : { a: steps("a", 2), b: steps("b", 2), c: steps("c", 2) }
          )
        })
        assert.include(problemOf(yield* Explorer.explore(scenario)), "the scenario is not the same from run to run")
      }))

    it.effect("has the services that the exploration is given", () =>
      Effect.gen(function*() {
        class Name extends Context.Service<Name, string>()("test/Name") {}
        const report = yield* Explorer.explore(Effect.flatMap(Name, (name) => Explorer.step(name))).pipe(
          Effect.provideService(Name, "named")
        )
        assert.strictEqual(report.schedules, 1)
      }))
  })

  describe("outside of an exploration", () => {
    it.effect("marked steps do nothing", () =>
      Effect.gen(function*() {
        yield* Explorer.actors({ a: steps("a", 3), b: steps("b", 3) })
        yield* Explorer.advance("1 hour")
        const exploration = yield* Explorer.Exploration
        assert.strictEqual(exploration.choose(["first", "second"]), 0)
        assert.throws(() => exploration.violate("law 3: twice"), "law 3: twice")
      }))

    it.effect("a step that is not possible yet lets others go on", () =>
      Effect.gen(function*() {
        let isOpen = false
        yield* Effect.all([
          Explorer.stepWhen("open", () => isOpen),
          Effect.andThen(Effect.yieldNow, Effect.sync(() => isOpen = true))
        ], { concurrency: "unbounded" })
        assert.isTrue(isOpen)
      }))
  })

  it.effect.prop(
    "schedules of many alternatives are read back as they are printed",
    [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 }))).check(Schema.isMaxLength(6))],
    ([choices]) =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        const scenario = Effect.gen(function*() {
          const exploration = yield* Explorer.Exploration
          const alternatives = Array.from({ length: 61 }, (_, i) => `alternative ${i}`)
          for (const _ of choices) seen.push(exploration.choose(alternatives))
          exploration.violate("the end")
        })
        const schedule = choices.map((choice) => choice < 36 ? choice.toString(36) : `(${choice})`).join("")
        const { failure } = yield* Explorer.replay(scenario, schedule)
        assert.deepStrictEqual(seen, choices)
        assert.strictEqual(failure?.schedule, schedule)
      })
  )
})
