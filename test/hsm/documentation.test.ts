/** That docs/acrn.md tells what the tests of this folder try. */
import { assert, describe, it } from "@effect/vitest"
import { tableUnder } from "./documentation.ts"
import { lawsOnDriver, type OnDriver } from "./lawsOnDriver.ts"
import { sequenceDifferences } from "./sequenceDifferences.ts"

const rowOfLaw = (entry: OnDriver): ReadonlyArray<string> => {
  const law = String(entry.law)
  switch (entry.tried) {
    case "Whole":
      return [law, "whole", "", ""]
    case "Part":
      return [law, entry.part, entry.why, entry.lines.join(", ")]
    case "Skipped":
      return [law, "not tried", entry.why, entry.lines.join(", ")]
  }
}

describe("docs/acrn.md", () => {
  it("has the laws as they are tried", () => {
    assert.deepStrictEqual(tableUnder("The laws through the driver"), lawsOnDriver.map(rowOfLaw))
  })

  it("has the differences of hypercall sequences, and no others", () => {
    assert.deepStrictEqual(
      tableUnder("Hypercall sequences"),
      sequenceDifferences.map(({ call, direct, driven, lines, why }) => [call, direct, driven, why, lines.join(", ")])
    )
  })
})
