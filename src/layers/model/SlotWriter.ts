/**
 * The hypervisor's half of the slot protocol for one vCPU: fill the slot, store PENDING, raise the upcall; later take
 * the answer and free the slot. It goes on from its own copy of the request, never from what the page then says.
 */
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../domain/Limits.ts"
import { SLOT_WORDS } from "../../domain/SlotWords.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { UpcallHandler, UpcallHint } from "../../services/Upcalls.ts"

const { Complete, Free, Pending } = Slot.SlotStateCode

const POLLING = Slot.SLOT_COMPLETION_POLLING_OFFSET / 4
const TYPE = Slot.SLOT_TYPE_OFFSET / 4
const DIRECTION = Slot.REQUEST_DIRECTION_OFFSET / 4
const ADDRESS = Slot.REQUEST_ADDRESS_OFFSET / 4
const SIZE = Slot.REQUEST_SIZE_OFFSET / 4
const VALUE = Slot.REQUEST_VALUE_OFFSET / 4

export class SlotWriter {
  /** A request is out and its answer not yet taken. */
  isWaiting = false
  /** The hypervisor was told that the request is finished. */
  isNotified = false
  /** The high word of the last answer to an access of 8 bytes. */
  answerHigh = 0

  private readonly words = new Int32Array(SLOT_WORDS)
  private readonly base: number
  private readonly hint: UpcallHint
  private readonly raise: UpcallHandler
  private readonly isPolled: boolean
  private page: ServicePage | undefined

  constructor(vmId: number, vcpu: number, raise: UpcallHandler, isPolled: boolean) {
    this.base = vcpu * SLOT_BYTES
    this.hint = { vmId, vcpu }
    this.raise = raise
    this.isPolled = isPolled
    this.words[POLLING] = isPolled ? 1 : 0
  }

  setPage(page: ServicePage | undefined): void {
    this.page = page
    this.abandon()
  }

  /** Forgets the request that is out: the slots were cleared. */
  abandon(): void {
    this.isWaiting = false
    this.isNotified = false
  }

  /**
   * Sends a request and tells whether its answer is there already, as with a handler that answers at once.
   * `address` is below 2^52; `value` is the low word of a write and `high` the other, which only 8 bytes have.
   */
  submit(type: number, direction: number, address: number, size: number, value: number, high = 0): boolean {
    const page = this.page
    if (page === undefined) return false
    const words = this.words
    words[TYPE] = type
    words[DIRECTION] = direction
    words[ADDRESS] = address | 0
    words[ADDRESS + 1] = address > 0xffff_ffff ? Math.floor(address / 2 ** 32) : 0
    words[SIZE] = size
    words[VALUE] = value
    words[VALUE + 1] = high
    page.storeRequest(this.base, words)
    this.isWaiting = true
    this.isNotified = false
    page.store32(this.base + Slot.SLOT_STATE_OFFSET, Pending)
    this.raise(this.hint)
    return this.isAnswered()
  }

  /** Whether the vCPU may go on: it was notified (or polls), and the slot is COMPLETE. */
  isAnswered(): boolean {
    return this.isWaiting && (this.isNotified || this.isPolled) &&
      // Guard: cve-2018-10981
      this.page!.load32(this.base + Slot.SLOT_STATE_OFFSET) === Complete
  }

  /** Whether the Service VM has not taken the request yet: it holds requests back, or has not heard of this one. */
  isUntaken(): boolean {
    return this.isWaiting && this.page!.load32(this.base + Slot.SLOT_STATE_OFFSET) === Pending
  }

  /** The low word of the answer, {@link answerHigh} being the other; frees the slot. Only after {@link isAnswered}. */
  take(): number {
    const page = this.page!
    const value = page.load32(this.base + Slot.REQUEST_VALUE_OFFSET)
    if (this.words[SIZE] === 8) this.answerHigh = page.load32(this.base + Slot.REQUEST_VALUE_OFFSET + 4) >>> 0
    this.isWaiting = false
    this.isNotified = false
    page.store32(this.base + Slot.SLOT_STATE_OFFSET, Free)
    return value >>> 0
  }
}
