import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { REQUEST_SIZE_OFFSET, SLOT_STATE_OFFSET } from "../../src/domain/abi/IoRequestSlot.ts"
import { RequestPage } from "../../src/services/dispatch/RequestPage.ts"
import * as IoRequestBuffer from "../../src/services/IoRequestBuffer.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import { Complete, FakePage, Free, Pending, Processing } from "../support/FakePage.ts"
import { brief, onSimulated } from "../support/machines.ts"

const make = (vcpus = 2) => {
  const fake = new FakePage()
  const notified: Array<number> = []
  const buffer = IoRequestBuffer.fromPage(new RequestPage(fake, vcpus, (vcpu) => notified.push(vcpu)))
  return { fake, buffer, notified }
}

const pendingOf = (buffer: IoRequestBuffer.IoRequestBuffer["Service"], vcpu: number) =>
  Effect.flatMap(buffer.pending(vcpu), (slot) => slot === undefined ? Effect.die("no request") : Effect.succeed(slot))

const reasonOf = <A>(effect: Effect.Effect<A, IoRequestBuffer.IoRequestBufferError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

describe("IoRequestBuffer", () => {
  it.effect("a slot goes from Pending through Processing to Complete, one handle for each", () =>
    Effect.gen(function*() {
      const { buffer, fake, notified } = make()
      fake.submit(1, { address: 0x80, size: 1 })
      const pending = yield* pendingOf(buffer, 1)
      assert.deepStrictEqual([pending.state, pending.vcpu, pending.request._tag], ["Pending", 1, "PortRead"])
      const processing = yield* pending.claim
      assert.strictEqual(fake.state(1), Processing)
      const complete = yield* processing.complete(0x142)
      assert.deepStrictEqual<unknown>(complete, { state: "Complete", vcpu: 1 })
      assert.deepStrictEqual(fake.answer(1), [0x42, 0])
      assert.deepStrictEqual(notified, [1])
    }))

  it.effect("the short cut answers without a claim", () =>
    Effect.gen(function*() {
      const { buffer, fake, notified } = make()
      fake.submit(0, { size: 4 })
      const pending = yield* pendingOf(buffer, 0)
      yield* pending.answer(undefined)
      assert.strictEqual(fake.state(0), Complete)
      assert.deepStrictEqual(fake.answer(0), [0xffff_ffff, 0])
      assert.deepStrictEqual(notified, [0])
    }))

  it.effect("each handle can be used once; what comes later is stale and changes nothing", () =>
    Effect.gen(function*() {
      const { buffer, fake, notified } = make()
      fake.submit(0, {})
      const pending = yield* pendingOf(buffer, 0)
      const processing = yield* pending.claim
      assert.strictEqual((yield* reasonOf(pending.claim))._tag, "Stale")
      assert.strictEqual((yield* reasonOf(pending.answer(1)))._tag, "Stale")
      yield* processing.complete(1)
      const before = Int32Array.from(fake.words)
      assert.deepStrictEqual(yield* reasonOf(processing.complete(2)), {
        _tag: "Stale",
        vcpu: 0,
        epoch: 1,
        currentEpoch: 2
      })
      assert.strictEqual((yield* reasonOf(pending.answer(1)))._tag, "Stale")
      assert.deepStrictEqual(fake.words, before)
      assert.deepStrictEqual(notified, [0])
    }))

  it.effect("of two handles of one request the first to act wins", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make()
      fake.submit(0, {})
      const [first, second] = [yield* pendingOf(buffer, 0), yield* pendingOf(buffer, 0)]
      yield* second.answer(1)
      assert.strictEqual((yield* reasonOf(first.claim))._tag, "Stale")
    }))

  it.effect("a handle outlives its request in vain: the slot's next request is not its own", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make()
      fake.submit(0, { address: 0x80 })
      const old = yield* pendingOf(buffer, 0)
      yield* old.answer(1)
      fake.setState(0, Free)
      fake.submit(0, { address: 0x81 })
      assert.strictEqual((yield* reasonOf(old.claim))._tag, "Stale")
      assert.strictEqual(fake.state(0), Pending)
      assert.strictEqual(brief((yield* pendingOf(buffer, 0)).request), "r1 port 81")
    }))

  it.effect("a request that was looked at before a reset is not the one that came after it (law 11)", () =>
    Effect.gen(function*() {
      const fake = new FakePage()
      const page = new RequestPage(fake, 1, () => 0)
      const buffer = IoRequestBuffer.fromPage(page)
      fake.submit(0, { address: 0x80 })
      const old = yield* pendingOf(buffer, 0)
      fake.setState(0, Free)
      page.forgetAll()
      fake.submit(0, { address: 0x81 })
      assert.strictEqual((yield* reasonOf(old.claim))._tag, "Stale")
      assert.strictEqual((yield* reasonOf(old.answer(1)))._tag, "Stale")
      assert.strictEqual(fake.state(0), Pending)
    }))

  it.effect("slots in other states have no request", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make()
      assert.isUndefined(yield* buffer.pending(0))
      fake.setState(0, Complete)
      assert.isUndefined(yield* buffer.pending(0))
      fake.submit(0, {})
      yield* (yield* pendingOf(buffer, 0)).claim
      assert.isUndefined(yield* buffer.pending(0), "held")
    }))

  it.effect("a vCPU that the VM has not is refused before the page is touched (law 6, CVE-2019-14821)", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make(2)
      for (const vcpu of [-1, 2, 16, 0.5, NaN, Infinity, 2 ** 32]) {
        assert.deepStrictEqual(yield* reasonOf(buffer.pending(vcpu)), { _tag: "NoSuchVcpu", vcpu, vcpus: 2 })
      }
      assert.deepStrictEqual(fake.accesses, [])
    }))

  it.effect("foreign states and impossible requests are refused by name", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make()
      fake.setState(0, 9)
      assert.deepStrictEqual(yield* reasonOf(buffer.pending(0)), {
        _tag: "Foreign",
        vcpu: 0,
        problem: "9 is not a request state"
      })
      fake.submit(1, { size: 3 })
      assert.deepStrictEqual(yield* reasonOf(buffer.pending(1)), {
        _tag: "Malformed",
        vcpu: 1,
        problem: "size 3 is not 1, 2, 4 or 8 bytes"
      })
      assert.strictEqual(fake.state(1), Complete, "a vCPU must not wait for what nobody can complete")
      assert.strictEqual(fake.answer(1)[0], 0xffff_ffff)
      fake.submit(0, {})
      const processing = yield* (yield* pendingOf(buffer, 0)).claim
      fake.setState(0, Free)
      assert.deepStrictEqual(yield* reasonOf(processing.complete(1)), {
        _tag: "Foreign",
        vcpu: 0,
        problem: "the slot was claimed but its state became 3 before completion"
      })
      assert.strictEqual(fake.state(0), Free)
    }))

  it.effect("inspect shows every slot as it stands", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make(5)
      fake.submit(0, {})
      fake.submit(1, {})
      yield* (yield* pendingOf(buffer, 1)).claim
      fake.setState(2, Complete)
      fake.setState(4, 77)
      const request = (vcpu: number) => ({ _tag: "PortRead", vcpu, port: 0x100, size: 1 })
      const view = yield* buffer.inspect
      assert.deepStrictEqual<unknown>(view, {
        slots: [
          { vcpu: 0, state: "Pending", owner: "Service", held: false, epoch: 0, request: request(0) },
          {
            vcpu: 1,
            state: "Processing",
            owner: "Service",
            held: true,
            epoch: 1,
            client: "(claimed by hand)",
            request: request(1),
            ageMs: 0
          },
          { vcpu: 2, state: "Complete", owner: "Hypervisor", held: false, epoch: 0 },
          { vcpu: 3, state: "Free", owner: "Hypervisor", held: false, epoch: 0 },
          { vcpu: 4, state: { unknown: 77 }, owner: "Nobody", held: false, epoch: 0 }
        ],
        ranges: [],
        nearMisses: []
      })
      assert.isTrue(Schema.is(IoRequestBuffer.PageView)(view))
    }))

  it.effect("inspect shows whose a slot is that the page lies about, and what a pending one cannot be", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make(4)
      for (const [vcpu, state] of [Pending, Free, 9].entries()) {
        fake.submit(vcpu, {})
        yield* (yield* pendingOf(buffer, vcpu)).claim
        fake.setState(vcpu, state)
      }
      fake.setState(3, Processing)
      const { slots } = yield* buffer.inspect
      assert.deepStrictEqual(slots.map(({ held, owner }) => [owner, held]), [
        ["Nobody", true],
        ["Nobody", true],
        ["Nobody", true],
        ["Nobody", false]
      ])
      assert.isTrue(slots.slice(0, 3).every(({ request }) => request?._tag === "PortRead"))
      fake.submit(3, { size: 3 })
      const [slot] = (yield* buffer.inspect).slots.slice(3)
      assert.deepStrictEqual([slot?.request, slot?.problem], [undefined, "size 3 is not 1, 2, 4 or 8 bytes"])
    }))

  it.effect("inspect changes nothing: neither the page, nor what a handle of a request knows", () =>
    Effect.gen(function*() {
      const { buffer, fake, notified } = make(2)
      fake.submit(0, { size: 1 })
      const pending = yield* pendingOf(buffer, 0)
      fake.setWord(0, REQUEST_SIZE_OFFSET, 4)
      fake.accesses.length = 0
      yield* buffer.inspect
      assert.isTrue(fake.accesses.every(({ access }) => access !== "store"))
      yield* (yield* pending.claim).complete(0x1234_5678)
      assert.deepStrictEqual([fake.answer(0)[0], notified], [0x78, [0]], "of the size that was asked for first")
    }))

  it.effect("the age of a request that is held by hand is by the clock of who claimed it", () =>
    Effect.gen(function*() {
      const { buffer, fake } = make(1)
      fake.submit(0, {})
      yield* TestClock.setTime(5000)
      yield* (yield* pendingOf(buffer, 0)).claim
      yield* TestClock.adjust(1234)
      assert.strictEqual((yield* buffer.inspect).slots[0]?.ageMs, 1234)
      yield* TestClock.setTime(0)
      assert.strictEqual((yield* buffer.inspect).slots[0]?.ageMs, 0, "a clock that is set back makes none negative")
    }))

  describe("make", () => {
    it.effect("looks at the page at a service address", () =>
      Effect.gen(function*() {
        const memory = yield* ServiceMemory
        const region = yield* memory.allocate({ bytes: 0x1000, purpose: { _tag: "IoRequestPage" } })
        const buffer = yield* IoRequestBuffer.make({ vmId: 1, page: region.address, vcpus: 16 })
        const page = Result.getOrThrow(memory.page(region.address))
        for (let vcpu = 0; vcpu < 16; vcpu++) page.store32(vcpu * 256 + SLOT_STATE_OFFSET, Free)
        assert.strictEqual((yield* buffer.inspect).slots.length, 16)
      }).pipe(onSimulated()))

    it.effect("refuses what is no page, and more vCPUs than a page has slots", () =>
      Effect.gen(function*() {
        const memory = yield* ServiceMemory
        const region = yield* memory.allocate({ bytes: 0x2000, purpose: { _tag: "IoRequestPage" } })
        const made = (page: number, vcpus: number) => Effect.exit(IoRequestBuffer.make({ vmId: 1, page, vcpus }))
        for (const page of [0, region.address + 8, region.address + 0x2000, -4096, NaN]) {
          assert.isTrue(Exit.isFailure(yield* made(page, 1)))
        }
        for (const vcpus of [17, 0.5, -1, NaN]) {
          const error = yield* Effect.flip(IoRequestBuffer.make({ vmId: 1, page: region.address, vcpus }))
          assert.strictEqual(error.reason._tag, "NoSuchVcpu")
        }
      }).pipe(onSimulated()))
  })
})
