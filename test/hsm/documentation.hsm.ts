import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { documentation } from "./documentation.ts"
import { artifacts } from "./transport/Artifacts.ts"

// A line of a comment, a brace, or nothing.
const SAYS_NOTHING = /^\s*(?:\*.*|\/\*.*|[{}]?\s*)$/

describe("docs/acrn.md", () => {
  it.live("names lines of the driver that say something", () =>
    Effect.gen(function*() {
      const { driver } = yield* artifacts
      const places = [...new Set([...documentation.matchAll(/\b[a-z]+\.c:\d+/g)].map(([place]) => place))]
      assert.isAbove(places.length, 50)
      const empty = places.filter((place) => {
        const [file = "", line] = place.split(":")
        return SAYS_NOTHING.test(readFileSync(join(driver, file), "utf8").split("\n")[Number(line) - 1] ?? "")
      })
      assert.deepStrictEqual(empty, [])
    }))
})
