/**
 * Linux `drivers/virt/acrn/ioreq.c`, `acrn_ioreq_complete_request`. A completion that comes from user space or from a
 * client of the kernel is taken for whichever request the slot holds: neither the slot's state nor who was asked is
 * looked at. A completion that comes late, twice or from a stranger answers a request that somebody else works on, or
 * writes COMPLETE over a slot that the hypervisor owns.
 *
 * Here a claim is a vCPU and an epoch. The epoch moves on with each completion, reset and destruction, so that a
 * completion that is not for the claim at hand is a typed refusal, and the page is not touched.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fromPage, type PendingSlot } from "../../src/services/IoRequestBuffer.ts"
import { makeDispatcher } from "../support/dispatcher.ts"
import { Free } from "../support/FakePage.ts"

const setup = Effect.sync(() => {
  const { dispatcher, fake, notified } = makeDispatcher()
  const buffer = fromPage(dispatcher.page)
  /** The request that vCPU 0 makes now. */
  const submit = Effect.suspend(() => {
    fake.submit(0, {})
    return Effect.map(buffer.pending(0), (slot): PendingSlot => slot!)
  })
  /** That an effect is refused as stale, and neither the page nor the hypervisor notices. */
  const assertStale = <A>(effect: Effect.Effect<A, { readonly reason: { readonly _tag: string } }>) =>
    Effect.gen(function*() {
      const page = Int32Array.from(fake.words)
      const heard = notified.length
      assert.strictEqual((yield* Effect.flip(effect)).reason._tag, "Stale")
      assert.deepStrictEqual(fake.words, page)
      assert.strictEqual(notified.length, heard)
    })
  return { assertStale, dispatcher, fake, notified, submit }
})

describe("a completion is taken from anybody, in any state", () => {
  it.effect("a second completion of one claim", () =>
    Effect.gen(function*() {
      const { assertStale, notified, submit } = yield* setup
      const held = yield* (yield* submit).claim
      yield* held.complete(1)
      yield* assertStale(held.complete(2))
      assert.deepStrictEqual(notified, [0])
    }))

  it.effect("a late completion, when the slot holds the next request", () =>
    Effect.gen(function*() {
      const { assertStale, fake, submit } = yield* setup
      const first = yield* (yield* submit).claim
      yield* first.complete(1)
      fake.setState(0, Free)
      const second = yield* (yield* submit).claim
      yield* assertStale(first.complete(2))
      yield* second.complete(3)
      assert.strictEqual(fake.answer(0)[0], 3)
    }))

  it.effect("a completion of a request that a reset dropped", () =>
    Effect.gen(function*() {
      const { assertStale, dispatcher, fake, submit } = yield* setup
      const held = yield* (yield* submit).claim
      fake.setState(0, Free)
      yield* dispatcher.forgetAll
      yield* assertStale(held.complete(1))
    }))

  it.effect("an answer to a request that was claimed, or answered, by somebody else", () =>
    Effect.gen(function*() {
      const { assertStale, fake, submit } = yield* setup
      const pending = yield* submit
      yield* pending.claim
      yield* assertStale(pending.answer(1))
      fake.setState(0, Free)
    }))
})
