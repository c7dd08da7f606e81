/** An I/O request page as it must be: what the steps on its slots make of it, byte by byte. */
import { REQUEST_VALUE_OFFSET, SLOT_STATE_OFFSET, SlotStateCode } from "../../domain/abi/IoRequestSlot.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../../domain/Limits.ts"
import { slotBytes } from "./PageByHand.ts"
import { answerBytes } from "./requests.ts"

const { Complete, Free, Pending } = SlotStateCode

/** What a slot must look like, and `serial`: how much has happened to it. */
class Slot {
  state: number = Free
  serial = 0
  request: IoRequest | undefined
  isPolled = false

  move(state: number): void {
    this.state = state
    this.serial++
  }
}

export class SlotModel {
  readonly slots: ReadonlyArray<Slot>
  readonly page: Uint8Array
  readonly notified: Array<number> = []
  private readonly view: DataView

  constructor(vcpus: number, page: Uint8Array) {
    this.slots = Array.from({ length: vcpus }, () => new Slot())
    this.page = page
    this.view = new DataView(page.buffer)
    for (let slot = 0; slot < MAX_VCPUS; slot++) this.writeState(slot, Free)
  }

  submit(slot: number, request: IoRequest, isPolled: boolean): void {
    const model = this.slots[slot]!
    model.request = request
    model.isPolled = isPolled
    this.page.set(slotBytes(request, Pending, isPolled), slot * SLOT_BYTES)
    model.move(Pending)
  }

  move(slot: number, state: number): void {
    this.slots[slot]!.move(state)
    this.writeState(slot, state)
  }

  /** What must become of an answer to the request, which is the slot's own unless somebody changed that meanwhile. */
  finish(slot: number, value: IoValue, request: IoRequest = this.slots[slot]!.request!): void {
    const bytes = answerBytes(request, value)
    // A narrow answer is written as a word.
    const word = bytes.length === 0 || bytes.length >= 4 ? bytes : [...bytes, 0, 0, 0].slice(0, 4)
    this.page.set(word, slot * SLOT_BYTES + REQUEST_VALUE_OFFSET)
    this.move(slot, Complete)
    if (!this.slots[slot]!.isPolled) this.notified.push(slot)
  }

  /** Somebody changes a word of a slot. */
  store(slot: number, offset: number, value: number): void {
    this.view.setInt32(slot * SLOT_BYTES + offset, value, true)
  }

  reset(): void {
    for (let slot = 0; slot < this.slots.length; slot++) this.move(slot, Free)
  }

  private writeState(slot: number, state: number): void {
    this.store(slot, SLOT_STATE_OFFSET, state)
  }
}
