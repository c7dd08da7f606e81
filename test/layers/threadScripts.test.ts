/** VMs wait for their threads to start, so these load little. */
import { assert, describe, it } from "@effect/vitest"
import { loadedWith } from "../support/loadedWith.ts"

const SCRIPTS = {
  "acrn/waiterThread.ts": "/waitForRequests.ts",
  "kvm/worker/vcpuThread.ts": "/runVcpu.ts"
}

describe("scripts of threads", () => {
  for (const [script, part] of Object.entries(SCRIPTS)) {
    it(`${script} loads none of Effect, which would take it longer than all the rest`, () => {
      const loaded = [...loadedWith(new URL(`../../src/layers/${script}`, import.meta.url))]
      assert.isTrue(loaded.some((name) => name.endsWith(part)))
      assert.deepStrictEqual(loaded.filter((name) => name.startsWith("effect")), [])
    })
  }
})
