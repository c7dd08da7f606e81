import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Law from "../../src/testing/Law.ts"
import { laws } from "../../src/testing/laws/all.ts"
import { runNodeInside } from "./boot.ts"
import { lawsOnDriver } from "./lawsOnDriver.ts"
import { tellingEnds } from "./tellingEnds.ts"

const RUNS = Number(process.env["UPCALL_HSM_RUNS"] ?? 200)
const SEED = process.env["UPCALL_HSM_SEED"] ?? "1"

interface Report {
  readonly number: number
  readonly outcome: Law.Outcome
  readonly seconds: number
}

/** Laws that share a machine: a boot takes longer than some laws. */
const MACHINES = [[1, 2, 4, 5, 7, 8], [9, 11, 12, 13, 14, 16, 19], [3, 6, 10, 15, 17, 18]]

const tryInside = (numbers: ReadonlyArray<number>) =>
  Effect.gen(function*() {
    const telling = tellingEnds()
    const { end, errors, reports } = yield* runNodeInside({
      file: "test/hsm/inside/laws.ts",
      args: [String(RUNS), SEED, ...numbers.map(String)],
      // What the driver leaves behind when a case is broken must not break the next.
      hypervisor: { destroyRunning: "Stop" },
      isRecording: false,
      seconds: 150 + 2 * RUNS,
      ...telling,
      onLine: (source, line, say) => {
        telling.onLine(source, line, say)
        // A law's report, as soon as it is there: a long run takes an hour.
        if (source === "Output") console.log(line)
      }
    })
    assert.deepStrictEqual(errors, [])
    assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
    return reports as ReadonlyArray<Report>
  })

/** What must come of a law, by the table. */
const check = ({ number, outcome }: Report): void => {
  const expected = lawsOnDriver.find(({ law }) => law === number)
  const law = laws.find((each) => each.number === number)
  if (outcome._tag === "Broken" && law !== undefined) assert.fail(Law.format(law, "acrn", outcome, outcome.replay))
  if (expected?.tried === "Skipped") return assert.strictEqual(outcome._tag, "Skipped")
  assert.deepStrictEqual(outcome, { _tag: "Held", cases: RUNS })
}

describe("the laws on Acrn.layer over the real driver", () => {
  it("are all in the table, and all tried on a machine", () => {
    const numbers = laws.map(({ number }) => number)
    assert.deepStrictEqual(lawsOnDriver.map(({ law }) => law), numbers)
    assert.deepStrictEqual(MACHINES.flat().toSorted((a, b) => a - b), numbers)
  })

  for (const numbers of MACHINES) {
    it.live(`laws ${numbers.join(", ")}: ${RUNS} cases each`, () =>
      Effect.gen(function*() {
        const reports = yield* tryInside(numbers)
        assert.deepStrictEqual(reports.map(({ number }) => number), numbers)
        for (const report of reports) check(report)
      }), 14_400_000)
  }
})
