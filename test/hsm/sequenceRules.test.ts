/** That the comparison of hypercall sequences finds what it should: Simulated stands on both sides. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { HypercallSequence } from "../../src/testing/HypercallSequence.ts"
import { sequenceDifferences } from "./sequenceDifferences.ts"
import { compare } from "./sequenceRules.ts"
import { abilitiesOf, HYPERVISOR, runAll, type Step } from "./sequenceRuns.ts"

const hypervisor = Simulated.layerWith(HYPERVISOR)

/** What is said of a sequence of which the other side gives the same as Simulated, but for its last call. */
const compareLast = (calls: HypercallSequence, change: (last: Step) => Step = (last) => last) =>
  Effect.gen(function*() {
    const [direct = []] = yield* runAll(hypervisor, [calls])
    const driven = [...direct.slice(0, -1), change(direct.at(-1)!)]
    return compare(calls, direct, driven, yield* abilitiesOf(hypervisor)).at(-1)!
  })

const CALLS: HypercallSequence = [
  { _tag: "Create", affinity: 1n, structure: "Memory" },
  { _tag: "SetPage", vm: 0, page: "Own", structure: "Memory" }
]

describe("comparing hypercall sequences", () => {
  for (const { example, id } of sequenceDifferences) {
    it.effect(`${id} must be seen`, () =>
      Effect.gen(function*() {
        const { differences, problem } = yield* compareLast(example)
        assert.deepStrictEqual(differences, [])
        // When the driver looks is its own business.
        if (id !== "PendingTaken") assert.isDefined(problem)
      }))
  }

  it.effect("nothing else may differ", () =>
    Effect.gen(function*() {
      const problem = (change: (last: Step) => Step) =>
        Effect.map(compareLast(CALLS, change), (compared) => compared.problem ?? "none")
      const slot = (index: number, state: number) => (last: Step): Step => ({
        ...last,
        slots: { 0: last.slots[0]!.with(index, state) }
      })
      assert.strictEqual(yield* problem((last) => last), "none")
      assert.include(yield* problem((last) => ({ ...last, result: -1 })), "its result is -1, not 0")
      assert.include(yield* problem((last) => ({ ...last, vcpus: 1 })), "its VM has 1 vCPUs")
      assert.include(yield* problem((last) => ({ ...last, problem: "it is odd" })), "it is odd")
      assert.include(yield* problem((last) => ({ ...last, slots: {} })), "has state undefined")
      // COMPLETE, as after a NOTIFY_REQUEST_FINISH, and PROCESSING, as after a look of the driver; there was neither.
      assert.include(yield* problem(slot(0, 1)), "slot 0 of VM 0's page has state 1, not 3")
      assert.include(yield* problem(slot(15, 2)), "slot 15 of VM 0's page has state 2, not 3")
    }))
})
