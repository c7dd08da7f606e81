/**
 * Xen XSA-155, XSA-166 and XSA-197. Backends, Xen itself and QEMU read a field of a shared structure twice: once to check
 * it, once to use it. Whoever owns the other side changes it in between, so that what is used was never checked. Where
 * the compiler made two reads out of one in the source, a jump table was indexed with a number of the attacker's choice.
 *
 * Here a request is copied out of the page once, while its slot is PENDING. The copy is decoded, the handler gets the
 * decoded value, and the completion goes by the copy's size and polling flag, whatever the page says by then.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../src/domain/Limits.ts"
import { SLOT_WORDS } from "../../src/domain/SlotWords.ts"
import { sharedBacking } from "../../src/services/AddressSpace.ts"
import { RequestPage } from "../../src/services/dispatch/RequestPage.ts"
import type { ServicePage } from "../../src/services/ServiceMemory.ts"
import { Complete, Pending } from "../support/FakePage.ts"
import { brief } from "../support/machines.ts"

const VALUE = Slot.REQUEST_VALUE_OFFSET

const write = (page: ServicePage, request: { address: number; size: number; polling: number }) => {
  const words = new Int32Array(SLOT_WORDS)
  words[Slot.SLOT_TYPE_OFFSET / 4] = Slot.RequestTypeCode.Mmio
  words[Slot.SLOT_COMPLETION_POLLING_OFFSET / 4] = request.polling
  words[Slot.REQUEST_DIRECTION_OFFSET / 4] = Slot.DirectionCode.Read
  words[Slot.REQUEST_ADDRESS_OFFSET / 4] = request.address
  words[Slot.REQUEST_SIZE_OFFSET / 4] = request.size
  words[VALUE / 4] = -1
  words[VALUE / 4 + 1] = -1
  page.storeRequest(SLOT_BYTES, words)
}

describe("XSA-155, XSA-166, XSA-197: a shared field is read twice", () => {
  it.effect("a page that changes after it was read changes neither the request nor its completion", () =>
    Effect.sync(() => {
      const memory = sharedBacking(0x1000).page(0)
      const notified: Array<number> = []
      const other = { address: 0x2000, size: 8, polling: 1 }
      let reads = 0
      // Every read is followed by a change.
      const page = new RequestPage(
        {
          ...memory,
          fetchRequest: (offset, words) => {
            reads++
            memory.fetchRequest(offset, words)
            write(memory, other)
          }
        },
        2,
        (vcpu) => notified.push(vcpu)
      )
      write(memory, { address: 0x1000, size: 2, polling: 0 })
      memory.store32(SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Pending)
      assert.strictEqual(page.look(1), "Request")
      assert.strictEqual(brief(page.request!), "r2 mmio 1000")
      const epoch = page.claim(1)
      write(memory, other)
      assert.strictEqual(page.complete(1, epoch, 0x1234_5678n), "Completed")
      assert.strictEqual(memory.load32(SLOT_BYTES + VALUE), 0x5678, "cut to the size that was read")
      assert.strictEqual(memory.load32(SLOT_BYTES + VALUE + 4), -1, "nothing is written beyond it")
      assert.strictEqual(memory.load32(SLOT_BYTES + Slot.SLOT_STATE_OFFSET), Complete)
      assert.deepStrictEqual([reads, notified], [1, [1]])
    }))

  it.effect("a page that turns from polling to notified after it was read is not notified", () =>
    Effect.sync(() => {
      const memory = sharedBacking(0x1000).page(0)
      const notified: Array<number> = []
      const page = new RequestPage(memory, 2, (vcpu) => notified.push(vcpu))
      write(memory, { address: 0x1000, size: 4, polling: 1 })
      memory.store32(SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Pending)
      page.look(1)
      write(memory, { address: 0x1000, size: 4, polling: 0 })
      page.answer(1, 7)
      assert.strictEqual(memory.load32(SLOT_BYTES + VALUE), 7)
      assert.deepStrictEqual(notified, [])
    }))
})
