/**
 * The Service VM's half of the slot protocol on one shared page: fetch once, claim, complete.
 *
 * It keeps what it holds in memory of its own. A claim is a vCPU and an epoch; completing, clearing and taking away
 * move the epoch on, so a late, second or foreign completion is recognised by one comparison, whatever the page says.
 */
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { SLOT_BYTES } from "../../domain/Limits.ts"
import type { RequestCommand, RequestState } from "../../domain/RequestState.ts"
import * as SlotWords from "../../domain/SlotWords.ts"
import type { ServicePage } from "../ServiceMemory.ts"

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

/** Hears of each step that the Service VM takes on a slot. */
export type StepObserver = (
  vcpu: number,
  epoch: number,
  from: RequestState,
  command: RequestCommand,
  to: RequestState
) => void

/** What looking at a slot found. `NotPending` needs nothing done; `Foreign` names a state that nobody may have set. */
export type Look = "Request" | "Malformed" | "NotPending" | "Foreign"

/** How a completion went. Only `Completed` changed the page. */
export type Completion = "Completed" | "Stale" | "Foreign"

const NOT_HELD = 0
const HELD = 1
// In place of an access size: a write has no value to answer with.
const NO_VALUE = 0

export class RequestPage {
  /** The request that the last {@link look} found. */
  request: IoRequest | undefined
  /** What was wrong with the slot that the last {@link look} found. */
  problem = ""
  observer: StepObserver | undefined

  readonly vcpus: number
  private readonly page: ServicePage
  private readonly notify: (vcpu: number) => void
  private readonly words = new Int32Array(SlotWords.SLOT_WORDS)
  private readonly held: Uint8Array
  private readonly polled: Uint8Array
  private readonly sizes: Uint8Array
  private readonly epochs: Float64Array

  constructor(page: ServicePage, vcpus: number, notify: (vcpu: number) => void) {
    this.page = page
    this.vcpus = vcpus
    this.notify = notify
    this.held = new Uint8Array(vcpus)
    this.polled = new Uint8Array(vcpus)
    this.sizes = new Uint8Array(vcpus)
    this.epochs = new Float64Array(vcpus)
  }

  stateCode(vcpu: number): number {
    return this.page.load32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET)
  }

  epoch(vcpu: number): number {
    return this.epochs[vcpu]!
  }

  isHeld(vcpu: number): boolean {
    return this.held[vcpu] === HELD
  }

  /** Reads the state, and a pending request's words once. The caller then answers or claims it. */
  look(vcpu: number): Look {
    const state = this.stateCode(vcpu)
    if (this.held[vcpu] === HELD) {
      if (state === Processing) return "NotPending"
      this.problem = `the slot is held as PROCESSING but its state became ${state}`
      return "Foreign"
    }
    if (state !== Pending) {
      if (state === Free || state === Complete) return "NotPending"
      this.problem = state === Processing
        ? "the slot says PROCESSING but nobody holds it"
        : `${state} is not a request state`
      return "Foreign"
    }
    this.page.fetchRequest(vcpu * SLOT_BYTES, this.words)
    this.polled[vcpu] = SlotWords.isPolled(this.words) ? 1 : 0
    const request = SlotWords.decode(this.words, vcpu)
    if (typeof request === "string") {
      this.request = undefined
      this.problem = request
      this.sizes[vcpu] = 8
      return "Malformed"
    }
    this.request = request
    this.sizes[vcpu] = SlotWords.isWrite(this.words) ? NO_VALUE : request.size
    return "Request"
  }

  /** Takes the request that was just looked at: PENDING -> PROCESSING. The result is the claim's epoch. */
  claim(vcpu: number): number {
    this.held[vcpu] = HELD
    const epoch = this.epochs[vcpu]! + 1
    this.epochs[vcpu] = epoch
    this.page.store32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Processing)
    if (this.observer !== undefined) this.observer(vcpu, epoch, "Pending", "Claim", "Processing")
    return epoch
  }

  /** Answers the request that was just looked at without a client: PENDING -> COMPLETE. */
  answer(vcpu: number, value: IoValue): void {
    const epoch = this.epochs[vcpu]! + 1
    this.epochs[vcpu] = epoch
    this.finish(vcpu, value)
    if (this.observer !== undefined) this.observer(vcpu, epoch, "Pending", "Answer", "Complete")
  }

  /** Completes a claim: PROCESSING -> COMPLETE. The value is written before the state, the state before the notify. */
  complete(vcpu: number, epoch: number, value: IoValue): Completion {
    if (this.held[vcpu] !== HELD || this.epochs[vcpu] !== epoch) return "Stale"
    this.held[vcpu] = NOT_HELD
    this.epochs[vcpu] = epoch + 1
    const state = this.stateCode(vcpu)
    if (state !== Processing) {
      this.problem = `the slot was claimed but its state became ${state} before completion`
      return "Foreign"
    }
    if (this.observer !== undefined) this.observer(vcpu, epoch, "Processing", "Complete", "Complete")
    this.finish(vcpu, value)
    return "Completed"
  }

  /** Forgets every claim without touching the page: what the hypervisor's own clearing of the slots asks for. */
  forgetAll(): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      this.held[vcpu] = NOT_HELD
      this.epochs[vcpu] = this.epochs[vcpu]! + 1
    }
  }

  private finish(vcpu: number, value: IoValue): void {
    const base = vcpu * SLOT_BYTES
    const size = this.sizes[vcpu]!
    if (size !== NO_VALUE) this.page.store32(base + Slot.REQUEST_VALUE_OFFSET, SlotWords.lowWord(value, size))
    // The word above is the bus number in a PCI request; only 8-byte accesses own it.
    if (size === 8) this.page.store32(base + Slot.REQUEST_VALUE_OFFSET + 4, SlotWords.highWord(value, size))
    this.page.store32(base + Slot.SLOT_STATE_OFFSET, Complete)
    if (this.polled[vcpu] === 0) this.notify(vcpu)
  }
}
