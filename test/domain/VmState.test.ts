import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as VmState from "../../src/domain/VmState.ts"

const show = (state: VmState.VmState): string =>
  state._tag === "Paused" ? `Paused(${state.started ? "ran" : "fresh"})` : state._tag

// ACRN's machine as a list, with the one step that only some layers have: Resume.
const legal = new Set([
  "Created Start Running",
  "Created Pause Paused(fresh)",
  "Running Pause Paused(ran)",
  "Paused(fresh) Pause Paused(fresh)",
  "Paused(ran) Pause Paused(ran)",
  "Paused(ran) Resume Running",
  "Paused(fresh) Reset Created",
  "Paused(ran) Reset Created",
  "Paused(fresh) Destroy Destroyed",
  "Paused(ran) Destroy Destroyed"
])

describe("VmState", () => {
  it.prop(
    "the schema of a transition accepts exactly the legal steps",
    [VmState.VmState, VmState.VmCommand, VmState.VmState],
    ([from, command, to]) => {
      const accepted = Schema.is(VmState.VmTransition)({ _tag: "VmTransition", from, command, to })
      assert.strictEqual(accepted, legal.has(`${show(from)} ${command} ${show(to)}`))
    },
    { arbitrary: { runs: 1000 } }
  )

  it.prop(
    "step takes exactly the legal steps, and its transitions decode",
    [VmState.VmState, VmState.VmCommand],
    ([from, command]) => {
      const taken = VmState.step(from, command)
      if (Result.isSuccess(taken)) {
        assert.isTrue(legal.has(`${show(from)} ${command} ${show(taken.success.to)}`))
        assert.isTrue(Schema.is(VmState.VmTransition)(taken.success))
      } else {
        assert.deepStrictEqual(taken.failure, { from, command })
        assert.isFalse([...legal].some((step) => step.startsWith(`${show(from)} ${command} `)))
      }
    },
    { arbitrary: { runs: 200 } }
  )

  it.prop("nothing leads out of Destroyed", [VmState.VmCommand], ([command]) => {
    assert.isUndefined(VmState.target(VmState.destroyed, command))
  })

  it.prop("acceptedIn names each state that accepts a command", [VmState.VmState, VmState.VmCommand], (
    [from, command]
  ) => {
    if (VmState.target(from, command) !== undefined) assert.include(VmState.acceptedIn(command), from._tag)
  })
})
