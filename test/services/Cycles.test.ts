/**
 * Pauses, resumes and resets with requests in flight, at points that a seed chooses: no request is lost, none is
 * repeated, nothing of one life comes into the next, and the guest's memory ends as if it had never been disturbed.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { diceOf, disturbed, type Outcome, programsOf, undisturbed } from "../support/cycles.ts"
import { onSimulated } from "../support/machines.ts"
import { buildEmulated } from "../testing/hypervisors.ts"

/** Every request was asked once in its life, in the order of its guest's program, and ended once. */
const assertAccount = ({ books, cycles }: Outcome, whole: Outcome, vcpus: number): void => {
  assert.deepStrictEqual(books.problems, [])
  assert.strictEqual(books.life, cycles.reset)
  const expected = whole.books.askedIn(whole.books.life, vcpus)
  assert.isTrue(expected.every((asked) => asked.length > 20))
  for (let life = 0; life <= books.life; life++) {
    for (const [vcpu, asked] of books.askedIn(life, vcpus).entries()) {
      const program = expected[vcpu]!
      // A life that was reset ended somewhere on the way.
      const due = life === books.life ? program : program.slice(0, asked.length)
      assert.deepStrictEqual(asked, due, `vCPU ${vcpu}, life ${life}`)
    }
  }
  assert.isTrue(books.questions.every(({ answers }) => answers === 1), "every request is answered once")
}

/** One VM's whole story; how often it was disturbed. */
const story = (seed: number, vcpus: number) =>
  Effect.gen(function*() {
    const dice = diceOf(seed)
    const programs = programsOf(dice, vcpus)
    const run = yield* disturbed(programs, dice)
    const whole = yield* undisturbed(programs, run.books.life)
    assertAccount(run, whole, vcpus)
    assert.deepStrictEqual(run.traces, whole.traces, "what each vCPU asked and was answered")
    if (vcpus === 1) assert.strictEqual(run.trace, whole.trace)
    assert.strictEqual(Buffer.compare(run.memory, whole.memory), 0, "the guest's memory")
    return { ...run.cycles, outlived: run.books.outlived }
  })

type Counts = Effect.Success<ReturnType<typeof story>>

/** Stories of the seeds 1, 2, 3, ... until there were `wanted` cycles. */
const cyclesOf = <E, R>(wanted: number, tell: (seed: number) => Effect.Effect<Counts, E, R>) =>
  Effect.gen(function*() {
    const sum = { resumed: 0, reset: 0, givenUp: 0, dropped: 0, stale: 0, outlived: 0 }
    for (let seed = 1; sum.resumed + sum.reset < wanted; seed++) {
      const counts = yield* tell(seed)
      for (const name of Object.keys(sum) as Array<keyof Counts>) sum[name] += counts[name]
    }
    return sum
  })

/** That there was something in flight to be lost: the stories must not become harmless. */
const assertEventful = (sum: Counts, wanted: number): void => {
  assert.isAtLeast(sum.resumed + sum.reset, wanted)
  assert.isAtLeast(sum.reset, wanted / 20, "resets")
  assert.isAtLeast(sum.dropped, wanted / 20, "requests in the page at a reset")
  assert.isAtLeast(sum.outlived, wanted / 20, "handlers that outlived a reset")
  assert.isAbove(sum.stale, 0, "claims by hand that outlived a reset")
  assert.isAbove(sum.givenUp, 0, "pauses that ended with their deadline")
}

// Seconds on a machine of its own; many times that beside other work.
const TIMEOUT_MS = 300_000

describe("pause, resume and reset with requests in flight", () => {
  it.effect("10,000 cycles on Simulated, with 1 to 4 vCPUs, notified and polled", () =>
    Effect.gen(function*() {
      const sum = yield* cyclesOf(10_000, (seed) =>
        onSimulated({ seed, completion: seed % 8 < 4 ? "Notify" : "Polling" })(story(seed, 1 + seed % 4)))
      assertEventful(sum, 10_000)
    }), TIMEOUT_MS)

  it.effect("1,000 cycles on Emulated", () =>
    Effect.gen(function*() {
      const emulated = yield* buildEmulated
      const sum = yield* cyclesOf(1000, (seed) => Effect.provide(story(seed, 1), emulated))
      assertEventful(sum, 1000)
    }), TIMEOUT_MS)
})
