import { assert, describe, it } from "@effect/vitest"
import { countSteps } from "../../bench/stuck-client.ts"

describe("a client that never answers", () => {
  it("costs the other fifteen vCPUs not one step", async () => {
    const stuck = await countSteps(true)
    assert.deepStrictEqual(stuck, await countSteps(false))
    assert.isAbove(stuck.pageAccesses, stuck.trips)
    assert.isAbove(stuck.instructions, stuck.trips)
  })
})
