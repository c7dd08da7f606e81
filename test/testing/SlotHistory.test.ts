import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { PAGE_BYTES, SLOT_BYTES } from "../../src/domain/Limits.ts"
import { AddressSpace, makeServiceMemory, sharedBacking } from "../../src/services/AddressSpace.ts"
import { PageByHand, slotBytes } from "../../src/testing/laws/PageByHand.ts"
import * as SlotHistory from "../../src/testing/SlotHistory.ts"

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode
const STATE = Slot.SLOT_STATE_OFFSET
const VALUE = Slot.REQUEST_VALUE_OFFSET
const SECOND = SLOT_BYTES

/** A watched page, from the Service VM's side and from the hypervisor's. */
const watchedPage = Effect.gen(function*() {
  const below = makeServiceMemory(new AddressSpace(), (bytes) => Result.succeed(sharedBacking(bytes)))
  const { history, memory } = SlotHistory.watch(below)
  const { address } = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } })
  const page = Result.getOrThrow(memory.page(address))
  const byHand = new PageByHand(below, address)
  for (let slot = 0; slot < 16; slot++) byHand.setState(slot, Free)
  return { address, below, byHand, history, memory, page }
})

const request = { _tag: "PortRead", vcpu: 1 as never, port: 0x60 as never, size: 1 } as const

describe("SlotHistory", () => {
  it.effect("tells each step of a request, in order, and who took it", () =>
    Effect.gen(function*() {
      const { byHand, history, page } = yield* watchedPage
      byHand.fill(1, slotBytes(request, Pending))
      page.load32(SECOND + STATE)
      page.fetchRequest(SECOND, new Int32Array(64))
      page.store32(SECOND + STATE, Processing)
      page.load32(SECOND + STATE)
      page.store32(SECOND + VALUE, 0x42)
      page.store32(SECOND + STATE, Complete)
      assert.deepStrictEqual(history.events(), [
        { _tag: "Moved", page: 0, slot: 1, by: "Hypervisor", from: Free, to: Pending },
        { _tag: "Read", page: 0, slot: 1, request: "read 1 byte from port 0x60 (vCPU 1)" },
        { _tag: "Moved", page: 0, slot: 1, by: "Service", from: Pending, to: Processing },
        { _tag: "Wrote", page: 0, slot: 1, word: VALUE, value: 0x42 },
        { _tag: "Moved", page: 0, slot: 1, by: "Service", from: Processing, to: Complete }
      ])
    }))

  it.effect("sees the hypervisor's steps when the Service VM looks, as one", () =>
    Effect.gen(function*() {
      const { byHand, history, page } = yield* watchedPage
      byHand.setState(0, Pending)
      byHand.setState(0, 7)
      assert.deepStrictEqual(history.events(), [])
      page.load32(STATE)
      page.load32(STATE)
      assert.deepStrictEqual(history.events(), [
        { _tag: "Moved", page: 0, slot: 0, by: "Hypervisor", from: Free, to: 7 }
      ])
    }))

  it.effect("says what is wrong with words that are no request", () =>
    Effect.gen(function*() {
      const { history, page } = yield* watchedPage
      page.fetchRequest(0, new Int32Array(64))
      assert.deepStrictEqual(history.events(), [
        { _tag: "Read", page: 0, slot: 0, request: "size 0 is not 1, 2, 4 or 8 bytes" }
      ])
    }))

  it.effect("changes nothing of what the Service VM reads and writes", () =>
    Effect.gen(function*() {
      const { address, below, page } = yield* watchedPage
      const plain = Result.getOrThrow(below.page(address))
      const words = Int32Array.from({ length: 64 }, (_, index) => index)
      page.storeRequest(SECOND, words)
      page.store32(SECOND + STATE, 9)
      const [through, direct] = [new Int32Array(64), new Int32Array(64)]
      page.fetchRequest(SECOND, through)
      plain.fetchRequest(SECOND, direct)
      assert.deepStrictEqual(through, direct)
      assert.strictEqual(through[16], 16)
      assert.strictEqual(page.load32(SECOND + STATE), 9)
    }))

  it.effect("watches pages of I/O requests alone, as long as they are given", () =>
    Effect.gen(function*() {
      const { below, history, memory } = yield* watchedPage
      const other = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "HypercallStructures" } })
      Result.getOrThrow(memory.page(other.address)).store32(STATE, Complete)
      const freed = yield* Effect.scoped(
        memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } })
      )
      const again = yield* below.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "HypercallStructures" } })
      assert.strictEqual(again.address, freed.address)
      Result.getOrThrow(memory.page(again.address)).store32(STATE, Complete)
      assert.deepStrictEqual(history.events(), [])
    }))

  it.effect("keeps the last 4096 events, and forgets them when it is told to", () =>
    Effect.gen(function*() {
      const { history, page } = yield* watchedPage
      for (let value = 0; value < 10_000; value++) page.store32(VALUE, value)
      const events = history.events()
      assert.strictEqual(events.length, 4096)
      assert.strictEqual(history.count(), 10_000)
      assert.deepStrictEqual(events.at(-1), { _tag: "Wrote", page: 0, slot: 0, word: VALUE, value: 9999 })
      history.clear()
      assert.deepStrictEqual(history.events(), [])
      assert.strictEqual(history.count(), 0)
    }))

  it.effect("counts pages from 0 in the order in which they were given, anew after it was cleared", () =>
    Effect.gen(function*() {
      const { history, memory } = yield* watchedPage
      const give = Effect.gen(function*() {
        const { address } = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } })
        Result.getOrThrow(memory.page(address)).store32(STATE, Complete)
      })
      yield* give
      history.clear()
      yield* give
      yield* give
      assert.deepStrictEqual(history.events().map(({ page }) => page), [0, 1])
    }))

  it("prints a table, of the last events where there are many, and of foreign states too", () => {
    const events: Array<SlotHistory.SlotEvent> = [
      { _tag: "Moved", page: 0, slot: 0, by: "Hypervisor", from: Free, to: Pending },
      { _tag: "Moved", page: 0, slot: 12, by: "Hypervisor", from: Pending, to: 0x7fff },
      { _tag: "Wrote", page: 0, slot: 12, word: 92, value: -1 }
    ]
    assert.strictEqual(
      SlotHistory.format(events),
      [
        "page  slot  by          step",
        "0     0     Hypervisor  Free -> Pending",
        "0     12    Hypervisor  Pending -> (32767)",
        "0     12    Service     writes 0xffffffff at byte 92"
      ].join("\n")
    )
    assert.strictEqual(
      SlotHistory.format(events, { limit: 1 }),
      ["page  slot  by       step", "(2 earlier events)", "0     12    Service  writes 0xffffffff at byte 92"].join(
        "\n"
      )
    )
    assert.strictEqual(SlotHistory.format([]), "page  slot  by  step")
  })
})
