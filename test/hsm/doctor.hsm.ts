import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { boot } from "./boot.ts"

describe("upcall doctor acrn, where the driver is", () => {
  it.live("finds that VMs can run on ACRN", () =>
    Effect.gen(function*() {
      const { calls, end, output } = yield* boot({ inside: [process.execPath, "src/cli/main.ts", "doctor", "acrn"] })
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 }, output.join("\n"))
      assert.strictEqual(output.at(-1), "VMs can run on ACRN here.")
      // It looks, and asks the hypervisor for nothing.
      assert.deepStrictEqual(calls, [])
    }))
})
