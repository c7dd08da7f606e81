import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema, Stream } from "effect"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../../src/domain/Limits.ts"
import { RequestTransition } from "../../../src/domain/RequestState.ts"
import { RequestPage } from "../../../src/services/dispatch/RequestPage.ts"
import { TransitionRing } from "../../../src/services/dispatch/TransitionRing.ts"
import { Complete, FakePage, Free, Pending, Processing } from "../../support/FakePage.ts"
import { turns } from "../../support/machines.ts"

const make = (vcpus = 2) => {
  const fake = new FakePage()
  const notified: Array<number> = []
  const page = new RequestPage(fake, vcpus, (vcpu) => notified.push(vcpu))
  return { fake, page, notified }
}

const isRequestWord = (offset: number): boolean => offset % SLOT_BYTES !== Slot.SLOT_STATE_OFFSET

describe("RequestPage", () => {
  it("a request is fetched once, claimed, completed, and its hypervisor told", () => {
    const { fake, notified, page } = make()
    fake.submit(1, { address: 0x3f8, size: 2 })
    assert.strictEqual(page.look(0), "NotPending")
    assert.strictEqual(page.look(1), "Request")
    assert.deepStrictEqual<unknown>(page.request, { _tag: "PortRead", vcpu: 1, port: 0x3f8, size: 2 })
    const epoch = page.claim(1)
    assert.strictEqual(fake.state(1), Processing)
    assert.isTrue(page.isHeld(1))
    assert.deepStrictEqual(notified, [])
    assert.strictEqual(page.complete(1, epoch, 0x1_2345), "Completed")
    assert.strictEqual(fake.state(1), Complete)
    assert.deepStrictEqual(fake.answer(1), [0x2345, 0])
    assert.deepStrictEqual(notified, [1])
  })

  it("reads the state first, and the request's words in one fetch (law 2)", () => {
    const { fake, page } = make()
    fake.submit(0, {})
    fake.accesses.length = 0
    page.look(0)
    page.claim(0)
    const reads = fake.accesses.filter(({ access }) => access !== "store")
    assert.deepStrictEqual(reads, [
      { access: "load", offset: Slot.SLOT_STATE_OFFSET },
      { access: "fetch", offset: 0 }
    ])
  })

  it("stores the value before the state, and the state last (the release)", () => {
    const { fake, notified, page } = make()
    fake.submit(0, { type: Slot.RequestTypeCode.Mmio, size: 8, address: 0xf000_0000 })
    page.look(0)
    const epoch = page.claim(0)
    fake.accesses.length = 0
    fake.afterAccess = () => assert.deepStrictEqual(notified, [], "the hypervisor hears after everything is written")
    page.complete(0, epoch, 0x1122_3344_5566_7788n)
    assert.deepStrictEqual(
      fake.accesses.filter(({ access }) => access === "store").map(({ offset }) => offset),
      [Slot.REQUEST_VALUE_OFFSET, Slot.REQUEST_VALUE_OFFSET + 4, Slot.SLOT_STATE_OFFSET]
    )
    assert.deepStrictEqual(fake.answer(0), [0x5566_7788, 0x1122_3344])
    assert.deepStrictEqual(notified, [0])
  })

  const Words = Schema.Struct({
    type: Schema.Literals([0, 1, 2, 3, 9]),
    direction: Schema.Literals([0, 1, 7]),
    address: Schema.Literals([0, 0x3f8, 0xffff, 0xf000_0000, 2 ** 52]),
    size: Schema.Literals([1, 2, 4, 8, 3]),
    value: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff })),
    polling: Schema.Boolean
  })

  it.prop("a page that changes after the read changes nothing of what was read (XSA-166, XSA-197)", [Words, Words], (
    [first, second]
  ) => {
    const steady = make()
    steady.fake.submit(0, first)
    const hostile = make()
    hostile.fake.submit(0, first)
    // From the fetch on, everything but the state is rewritten after each access, as a guest with the page mapped could.
    let isRead = false
    hostile.fake.afterAccess = (access) => {
      isRead ||= access === "fetch"
      if (!isRead) return
      const state = hostile.fake.state(0)
      hostile.fake.submit(0, second)
      hostile.fake.setState(0, state)
    }
    const looks = [steady, hostile].map(({ page }) => page.look(0))
    assert.strictEqual(looks[0], looks[1])
    assert.deepStrictEqual(hostile.page.request, steady.page.request)
    for (const { page } of [steady, hostile]) {
      if (looks[0] === "Request") page.complete(0, page.claim(0), 0xaabb_ccdd)
      else page.answer(0, undefined)
    }
    assert.deepStrictEqual(hostile.notified, steady.notified, "polling is read before COMPLETE is stored, once")
    const stored = [steady, hostile].map(({ fake }) =>
      fake.accesses.filter(({ access }) => access === "store").map(({ offset }) => offset)
    )
    assert.deepStrictEqual(stored[0], stored[1], "the access size too is the one that was read")
  })

  it("a second completion, and one of another epoch, change nothing (law 3)", () => {
    const { fake, notified, page } = make()
    fake.submit(0, {})
    page.look(0)
    const epoch = page.claim(0)
    assert.strictEqual(page.complete(0, epoch + 1, 1), "Stale")
    assert.strictEqual(page.complete(0, epoch - 1, 1), "Stale")
    assert.strictEqual(page.complete(1, 0, 1), "Stale", "never claimed")
    assert.strictEqual(page.complete(0, epoch, 7), "Completed")
    // The hypervisor took the answer and sent the next request, which is claimed again.
    fake.submit(0, {})
    page.look(0)
    const next = page.claim(0)
    const before = Int32Array.from(fake.words)
    assert.strictEqual(page.complete(0, epoch, 9), "Stale")
    assert.deepStrictEqual(fake.words, before)
    assert.deepStrictEqual(notified, [0])
    assert.strictEqual(page.complete(0, next, 9), "Completed")
  })

  it("nothing of the old life completes after a reset (law 11)", () => {
    const { fake, notified, page } = make()
    fake.submit(0, {})
    page.look(0)
    const epoch = page.claim(0)
    fake.setState(0, Free)
    page.forgetAll()
    assert.isFalse(page.isHeld(0))
    fake.submit(0, {})
    page.look(0)
    page.claim(0)
    const before = Int32Array.from(fake.words)
    assert.strictEqual(page.complete(0, epoch, 1), "Stale")
    assert.deepStrictEqual(fake.words, before)
    assert.deepStrictEqual(notified, [])
  })

  it.prop("a held slot whose state was changed is reported and not touched (XSA-262)", [
    Schema.Union([Schema.Literals([Free, Pending, Complete, 4, -1]), Schema.Int])
  ], ([word]) => {
    const state = word | 0
    if (state === Processing) return
    const { fake, notified, page } = make()
    fake.submit(0, {})
    page.look(0)
    const epoch = page.claim(0)
    fake.setState(0, state)
    const before = Int32Array.from(fake.words)
    assert.strictEqual(page.look(0), "Foreign")
    assert.include(page.problem, String(state))
    assert.strictEqual(page.complete(0, epoch, 1), "Foreign")
    assert.deepStrictEqual(fake.words, before)
    assert.deepStrictEqual(notified, [])
    assert.isFalse(page.isHeld(0), "the claim is over")
  })

  it.prop("a slot that nobody holds is looked at only when it is PENDING", [Schema.Int], ([word]) => {
    const state = word | 0
    const { fake, page } = make()
    fake.submit(0, {})
    fake.setState(0, state)
    fake.accesses.length = 0
    const expected = state === Pending ? "Request" : state === Free || state === Complete ? "NotPending" : "Foreign"
    assert.strictEqual(page.look(0), expected)
    assert.strictEqual(fake.accesses.some(({ access }) => access === "fetch"), state === Pending)
  })

  it("each proper state, and PROCESSING by a stranger, is told apart", () => {
    const { fake, page } = make()
    const looks = [Free, Complete, Processing].map((state) => {
      fake.setState(0, state)
      return page.look(0)
    })
    assert.deepStrictEqual(looks, ["NotPending", "NotPending", "Foreign"])
    assert.strictEqual(page.problem, "the slot says PROCESSING but nobody holds it")
  })

  it("a malformed request can be answered, and reads all-ones", () => {
    const { fake, notified, page } = make()
    fake.submit(0, { type: 9 })
    assert.strictEqual(page.look(0), "Malformed")
    assert.isUndefined(page.request)
    assert.include(page.problem, "type 9")
    page.answer(0, undefined)
    assert.strictEqual(fake.state(0), Complete)
    assert.strictEqual(fake.answer(0)[0], 0xffff_ffff)
    assert.deepStrictEqual(notified, [0])
  })

  it("a write has no value to answer with", () => {
    const { fake, page } = make()
    fake.submit(0, { direction: 1, value: 0x55 })
    page.look(0)
    page.complete(0, page.claim(0), 0x99)
    assert.deepStrictEqual(fake.answer(0), [0x55, 0])
  })

  it("the answer of a PCI read leaves the bus number behind it alone", () => {
    const { fake, page } = make()
    fake.submit(0, { type: Slot.RequestTypeCode.PciConfig, size: 4 })
    fake.setWord(0, Slot.REQUEST_PCI_BUS_OFFSET, 0x55)
    fake.setWord(0, Slot.REQUEST_PCI_DEVICE_OFFSET, 1)
    page.look(0)
    page.complete(0, page.claim(0), undefined)
    assert.deepStrictEqual(fake.answer(0), [0xffff_ffff, 0x55])
  })

  it("a polling hypervisor is not notified", () => {
    const { fake, notified, page } = make()
    fake.submit(0, { polling: true })
    page.look(0)
    page.complete(0, page.claim(0), 1)
    fake.submit(1, { polling: true })
    page.look(1)
    page.answer(1, 1)
    assert.deepStrictEqual([fake.state(0), fake.state(1)], [Complete, Complete])
    assert.deepStrictEqual(notified, [])
  })

  const Step = Schema.TaggedUnion({
    Submit: { vcpu: Schema.Literals([0, 1]) },
    Serve: { vcpu: Schema.Literals([0, 1]), answer: Schema.Boolean },
    Complete: { claim: Schema.Natural },
    Take: { vcpu: Schema.Literals([0, 1]) },
    Reset: {},
    Corrupt: { vcpu: Schema.Literals([0, 1]), state: Schema.Literals([0, 1, 2, 3, 4]) }
  })

  it.effect.prop("whatever happens, only legal steps are taken, and each claim is completed once at most", [
    Arbitrary.array(Arbitrary.schema(Step), { minLength: 5, maxLength: 60 })
  ], ([steps]) =>
    Effect.gen(function*() {
      const { fake, page } = make()
      const isLegal = Schema.is(RequestTransition)
      const claims: Array<{ readonly vcpu: number; readonly epoch: number; done: boolean }> = []
      const taken: Array<RequestTransition> = []
      const ring: TransitionRing = new TransitionRing((isRead) => {
        page.transitions = isRead ? ring : undefined
      })
      yield* Effect.forkChild(Stream.runForEachArray(ring.stream, (batch) => Effect.sync(() => taken.push(...batch))), {
        startImmediately: true
      })
      let answered = 0
      for (const step of steps) {
        switch (step._tag) {
          case "Submit":
            if (fake.state(step.vcpu) === Free) fake.submit(step.vcpu, {})
            break
          case "Serve":
            if (page.look(step.vcpu) !== "Request") break
            if (step.answer) {
              answered++
              page.answer(step.vcpu, 1)
            } else claims.push({ vcpu: step.vcpu, epoch: page.claim(step.vcpu), done: false })
            break
          case "Complete": {
            const claim = claims[step.claim % claims.length]
            if (claim === undefined) break
            const outcome = page.complete(claim.vcpu, claim.epoch, 1)
            if (outcome === "Completed") {
              assert.isFalse(claim.done)
              claim.done = true
            }
            break
          }
          case "Take":
            if (fake.state(step.vcpu) === Complete) fake.setState(step.vcpu, Free)
            break
          case "Reset":
            for (const vcpu of [0, 1]) fake.setState(vcpu, Free)
            page.forgetAll()
            break
          case "Corrupt":
            fake.setState(step.vcpu, step.state)
            break
        }
      }
      yield* turns(2)
      assert.isTrue(taken.every(isLegal))
      const count = (wanted: string) => taken.filter(({ command }) => command === wanted).length
      assert.deepStrictEqual(["Claim", "Complete", "Answer"].map(count), [
        claims.length,
        claims.filter(({ done }) => done).length,
        answered
      ])
      assert.isTrue(fake.accesses.every(({ access, offset }) => access !== "store" || offset < 2 * SLOT_BYTES))
      assert.isTrue(
        fake.accesses.filter(({ access }) => access === "load").every(({ offset }) => !isRequestWord(offset))
      )
    }), { arbitrary: { runs: 300 } })
})
