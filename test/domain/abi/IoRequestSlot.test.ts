import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import type * as Layout from "../../../src/domain/abi/Layout.ts"
import { U32, U64 } from "../../../src/domain/abi/Unsigned.ts"

const inReqs = (request: Uint8Array): Uint8Array => {
  const reqs = new Uint8Array(64)
  reqs.set(request)
  return reqs
}

describe("IoRequestSlot", () => {
  it("the word offsets are those of the 256-byte slot", () => {
    assert.deepStrictEqual([
      Slot.SLOT_TYPE_OFFSET,
      Slot.SLOT_COMPLETION_POLLING_OFFSET,
      Slot.SLOT_REQUEST_OFFSET,
      Slot.SLOT_KERNEL_HANDLED_OFFSET,
      Slot.SLOT_STATE_OFFSET
    ], [0, 4, 64, 132, 136])
    assert.deepStrictEqual([
      Slot.REQUEST_DIRECTION_OFFSET,
      Slot.REQUEST_ADDRESS_OFFSET,
      Slot.REQUEST_SIZE_OFFSET,
      Slot.REQUEST_VALUE_OFFSET,
      Slot.REQUEST_PCI_BUS_OFFSET,
      Slot.REQUEST_PCI_DEVICE_OFFSET,
      Slot.REQUEST_PCI_FUNCTION_OFFSET,
      Slot.REQUEST_PCI_REGISTER_OFFSET
    ], [64, 72, 80, 88, 92, 96, 100, 104])
  })

  it("a state is told by its code, and any other word is no state", () => {
    assert.deepStrictEqual([0, 1, 2, 3].map(Slot.slotStateOf), ["Pending", "Complete", "Processing", "Free"])
    for (const code of [4, -1, 256, 0.5, Number.NaN]) assert.isUndefined(Slot.slotStateOf(code))
  })

  it("direction, size and value lie at one place in all three requests, the address in two", () => {
    for (const name of ["direction", "size", "value"] as const) {
      assert.strictEqual(Slot.MmioRequest.offsets[name], Slot.PioRequest.offsets[name])
      assert.strictEqual(Slot.PciRequest.offsets[name], Slot.PioRequest.offsets[name])
    }
    assert.strictEqual(Slot.MmioRequest.offsets.address, Slot.PioRequest.offsets.address)
  })

  it.prop(
    "a request put into a slot comes out of it, and its words are at the offsets",
    [U32, U64, U64, U64],
    ([direction, address, size, value]) => {
      const request = { direction, address, size, value }
      const bytes = Result.getOrThrow(Slot.IoRequestSlot.encode({
        type: Slot.RequestTypeCode.Mmio,
        completionPolling: 1,
        reqs: inReqs(Result.getOrThrow(Slot.MmioRequest.encode(request))),
        kernelHandled: 0,
        processed: Slot.SlotStateCode.Free
      }))
      const view = new DataView(bytes.buffer)
      assert.strictEqual(view.getUint32(Slot.SLOT_TYPE_OFFSET, true), 1)
      assert.strictEqual(view.getUint32(Slot.SLOT_STATE_OFFSET, true), 3)
      assert.strictEqual(view.getUint32(Slot.REQUEST_DIRECTION_OFFSET, true), direction)
      assert.strictEqual(view.getBigUint64(Slot.REQUEST_ADDRESS_OFFSET, true), address)
      assert.strictEqual(view.getBigUint64(Slot.REQUEST_VALUE_OFFSET, true), value)
      const slot = Result.getOrThrow(Slot.IoRequestSlot.decode(bytes))
      assert.deepStrictEqual(Result.getOrThrow(Slot.MmioRequest.decode(slot.reqs)), request)
    }
  )

  it("a zero-filled page reads as 16 pending port reads", () => {
    const page = Result.getOrThrow(Slot.IoRequestPage.decode(new Uint8Array(Slot.IoRequestPage.size)))
    assert.strictEqual(page.reqSlot.length, 16)
    for (const slot of page.reqSlot) {
      assert.strictEqual(slot.processed, Slot.SlotStateCode.Pending)
      assert.strictEqual(slot.type, Slot.RequestTypeCode.PortIo)
      assert.strictEqual(
        Result.getOrThrow(Slot.PioRequest.decode(slot.reqs)).direction,
        Slot.DirectionCode.Read
      )
    }
  })

  it("slot y of the page begins at 256 y", () => {
    for (let index = 0; index < 16; index++) {
      const bytes = new Uint8Array(Slot.IoRequestPage.size)
      new DataView(bytes.buffer).setUint32(index * 256 + Slot.SLOT_STATE_OFFSET, 3, true)
      const states = Result.getOrThrow(Slot.IoRequestPage.decode(bytes)).reqSlot.map((slot) => slot.processed)
      assert.deepStrictEqual(states, Array.from({ length: 16 }, (_, slot) => slot === index ? 3 : 0))
    }
  })

  it("the table's types are those of its fields", () => {
    // Compiles only while a decoded request is exactly this.
    const request: Layout.Value<typeof Slot.PioRequest> = { direction: 0, address: 0n, size: 0n, value: 0 }
    const same: { direction: number; address: bigint; size: bigint; value: number } = request
    assert.isDefined(same)
  })
})
