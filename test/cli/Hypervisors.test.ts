import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { automatic } from "../../src/cli/Hypervisors.ts"
import { kvmProblem } from "../support/kvm.ts"

describe("the hypervisor that is best here", () => {
  for (const device of ["/nowhere/kvm", "/dev/null"]) {
    it.effect(`is the emulator where ${device} is all there is, which is explained`, () =>
      Effect.gen(function*() {
        const { choice, explanation } = yield* automatic(device)
        assert.deepStrictEqual(choice, { _tag: "Emulated", clock: "real", seed: 1 })
        assert.match(explanation, /^running on the emulator, without KVM: ./)
        if (process.platform === "linux" && process.arch === "x64") {
          assert.include(explanation, device === "/dev/null" ? "ENOTTY" : "/nowhere/kvm could not be opened: ENOENT")
        }
      }))
  }

  const problem = kvmProblem()
  it.live.skipIf(problem !== undefined)(
    `is KVM where a guest runs on it${problem === undefined ? "" : ` (skipped: ${problem})`}`,
    () =>
      Effect.gen(function*() {
        const { choice, explanation } = yield* automatic()
        assert.deepStrictEqual([choice, explanation], [{ _tag: "Kvm", placement: "inline" }, "running on KVM"])
      })
  )
})
