import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import * as Law from "../../src/testing/Law.ts"
import * as Laws from "../../src/testing/Laws.ts"
import * as planted from "./laws/planted.ts"

const root = join(import.meta.dirname, "../..")

/** What vitest says of the suites in laws/suite. */
const runSuite = () =>
  spawnSync(
    process.execPath,
    [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--root",
      root,
      "--config",
      "test/testing/laws/suite/vitest.config.ts",
      "--reporter=verbose"
    ],
    { encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } }
  )

describe("Laws", () => {
  it("are the nineteen, in order", () => {
    assert.deepStrictEqual(
      Laws.laws.map(({ number }) => number),
      Array.from({ length: 19 }, (_, index) => index + 1)
    )
    for (const { title } of Laws.laws) assert.match(title, /^[a-z].*[^.]$/, "it goes on a line of its own")
  })

  it.live("are tests of vitest: one that holds, one that is left out with its reason, one that is broken", () =>
    Effect.gen(function*() {
      const run = runSuite()
      assert.strictEqual(run.status, 1, run.stderr)
      assert.match(run.stdout, /✓ .* > sound > law 1: a slot's state/)
      assert.match(run.stdout, /↓ .* > sound > law 12: .* \[its line is another's\]/)
      assert.match(run.stdout, /× .* > faulty > law 12: /)
      assert.match(run.stdout, /1 failed \| 1 passed \| 1 skipped/)
      assert.include(run.stderr, "law 12 does not hold on faulty")

      const line = run.stderr.match(/^ *Laws\.suite\("faulty", layer, \{ only: \[12\], replay: (".*") \}\)$/m)
      if (line === null) return assert.fail("there is no line that replays it")
      const law = Laws.laws.find(({ number }) => number === 12)!
      const replay = JSON.parse(line[1]!) as string
      const again = yield* Law.check(law, "faulty", planted.losesUpcalls, { replay })
      assert.strictEqual(again._tag, "Broken")
    }))
})
