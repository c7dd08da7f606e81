/** The smaller scenarios of `npm run explore`, and a few of its planted bugs; the script runs all of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { misfit, run } from "../../../scripts/explore/job.ts"
import { planted } from "../../../scripts/explore/planted.ts"
import { scenarios } from "../../../scripts/explore/scenarios/all.ts"
import * as Explorer from "../../../src/testing/Explorer.ts"

const scenarioOf = (name: string) => {
  const found = scenarios.find((each) => each.name === name)
  if (found === undefined) throw new Error(`there is no scenario "${name}"`)
  return found.run
}

describe("scenarios", () => {
  // Two vCPUs that each ask two clients, three steps an access: C(12, 6) orders.
  it.effect("complete: as many schedules as there are orders of its steps", () =>
    Effect.gen(function*() {
      const report = yield* Explorer.explore(scenarioOf("complete"))
      assert.deepStrictEqual(report, { schedules: 924, isComplete: true, failure: undefined })
    }))

  for (
    const name of [
      "client destroy inside of a handler",
      "own ports inside of a handler",
      "VM destroy and client destroy",
      "VM destroy inside of a handler",
      "simulated client destroy"
    ]
  ) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const report = yield* Explorer.explore(scenarioOf(name))
        assert.isUndefined(report.failure, report.failure && Explorer.format(report.failure))
        assert.isTrue(report.isComplete)
      }))
  }

  it.effect("a larger one, at random", () =>
    Effect.gen(function*() {
      const report = yield* Explorer.random(scenarioOf("everything and VM destroy, at random"), {
        seed: 3,
        schedules: 50
      })
      assert.isUndefined(report.failure, report.failure && Explorer.format(report.failure))
      assert.isAbove(report.schedules, 45)
    }))
})

describe("planted bugs", () => {
  it("each fits the sources as they are, and has a scenario", () => {
    for (const { edits, name, scenario } of planted) {
      assert.deepStrictEqual(edits.map(misfit).filter((problem) => problem !== undefined), [], name)
      assert.isDefined(scenarioOf(scenario))
    }
  })

  for (const name of ["a completion does not compare its epoch", "the page is looked at before the handler is armed"]) {
    it(`found: ${name}`, async () => {
      const bug = planted.find((each) => each.name === name)!
      const { report } = await run({ name: bug.scenario, how: { _tag: "All" }, edits: bug.edits })
      assert.isDefined(report.failure)
      const schedule = report.failure?.schedule ?? ""
      const replayed = await run({ name: bug.scenario, how: { _tag: "Replay", schedule }, edits: bug.edits })
      assert.strictEqual(replayed.report.failure?.problem, report.failure?.problem, "its schedule replays it")
      const healthy = await run({ name: bug.scenario, how: { _tag: "Replay", schedule }, edits: [] })
      assert.notStrictEqual(healthy.report.failure?.problem, report.failure?.problem, "it is the bug that is found")
    })
  }

  it("one that no longer fits is no quiet success", async () => {
    const edits = [{ file: "src/services/Upcalls.ts", find: "no such text", replace: "" }]
    let problem = ""
    await run({ name: "complete", how: { _tag: "All" }, edits }).catch((error: unknown) => {
      problem = String(error)
    })
    assert.include(problem, "stands in src/services/Upcalls.ts 0 times")
  })
})
