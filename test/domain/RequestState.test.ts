import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { VcpuId } from "../../src/domain/Address.ts"
import * as RequestState from "../../src/domain/RequestState.ts"

// The protocol once more, as a list of what is allowed: law 1 and its short cut.
const legal = new Set([
  "Free Submit Pending",
  "Pending Claim Processing",
  "Processing Complete Complete",
  "Pending Answer Complete",
  "Complete Release Free",
  "Free Clear Free",
  "Pending Clear Free",
  "Processing Clear Free",
  "Complete Clear Free"
])

describe("RequestState", () => {
  it.prop(
    "the schema of a transition accepts exactly the legal steps",
    [RequestState.RequestState, RequestState.RequestCommand, RequestState.RequestState, VcpuId, Schema.Natural],
    ([from, command, to, vcpu, epoch]) => {
      const accepted = Schema.is(RequestState.RequestTransition)(
        { _tag: "RequestTransition", vcpu, epoch, from, command, to }
      )
      assert.strictEqual(accepted, legal.has(`${from} ${command} ${to}`))
    },
    { arbitrary: { runs: 500 } }
  )

  it.prop(
    "step takes a legal step and names a refused one",
    [RequestState.RequestState, RequestState.RequestCommand],
    ([from, command]) => {
      const taken = RequestState.step(from, command)
      if (Result.isSuccess(taken)) assert.isTrue(legal.has(`${from} ${command} ${taken.success}`))
      else {
        assert.deepStrictEqual(taken.failure, { from, command })
        assert.isFalse([...legal].some((step) => step.startsWith(`${from} ${command} `)))
      }
    },
    { arbitrary: { runs: 200 } }
  )

  it.prop(
    "a slot that was in any state is Free again only through Complete, or by a Clear",
    [Schema.Array(RequestState.RequestCommand)],
    ([commands]) => {
      let state: RequestState.RequestState = "Free"
      let wasComplete = false
      for (const command of commands) {
        const before: RequestState.RequestState = state
        state = Result.getOrElse(RequestState.step(state, command), () => before)
        if (state === "Complete") wasComplete = true
        if (state === "Free" && before !== "Free") assert.isTrue(wasComplete || command === "Clear")
        if (state === "Free") wasComplete = false
      }
    }
  )

  it("a refused step says what was wrong when it is decoded", () => {
    const decoded = Schema.decodeUnknownResult(RequestState.RequestTransition)({
      _tag: "RequestTransition",
      vcpu: 0,
      epoch: 1,
      from: "Complete",
      command: "Claim",
      to: "Processing"
    })
    assert.isTrue(Result.isFailure(decoded))
    assert.include(String(Result.getOrThrow(Result.flip(decoded))), "Claim does not lead from Complete to Processing")
  })
})
