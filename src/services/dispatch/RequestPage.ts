/**
 * The Service VM's half of the slot protocol on one shared page: fetch once, claim, complete. This is the whole half, as
 * it is played over a bare hypervisor; `DefaultClientPage` is the part of it that a kernel's own module leaves over.
 *
 * It keeps what it holds in memory of its own. A claim is a vCPU and an epoch; completing, clearing and taking away
 * move the epoch on, so a late, second or foreign completion is recognised by one comparison, whatever the page says.
 */
import type * as Clock from "effect/Clock"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { SLOT_BYTES } from "../../domain/Limits.ts"
import * as SlotWords from "../../domain/SlotWords.ts"
import type { ServicePage } from "../ServiceMemory.ts"
import type { Holder } from "./PageUse.ts"
import { StepCode, type TransitionRing } from "./TransitionRing.ts"

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

/** What looking at a slot found. `NotPending` needs nothing done; `Foreign` names a state that nobody may have set. */
export type Look = "Request" | "Malformed" | "NotPending" | "Foreign"

/** How a completion went. Only `Completed` changed the page. */
export type Completion = "Completed" | "Stale" | "Foreign"

/** A request that a program claimed itself, and when by which clock. */
export interface HandClaim {
  readonly epoch: number
  readonly request: IoRequest
  readonly clock: Clock.Clock
  readonly since: number
}

/** A program that claimed a request itself, in place of a client's name. */
export const BY_HAND = "(claimed by hand)"

/** Milliseconds since then; a clock that was set back makes nothing younger than now. */
export const ageOf = (clock: Clock.Clock, since: number): number => Math.max(0, clock.currentTimeMillisUnsafe() - since)

/** Who holds a slot by hand. */
export const byHand = (page: RequestPage, vcpu: number): Holder | undefined => {
  const claim = page.handClaim(vcpu)
  return claim === undefined
    ? undefined
    : { client: BY_HAND, request: claim.request, ageMs: ageOf(claim.clock, claim.since) }
}

const NOT_HELD = 0
const HELD = 1
// In place of an access size: a write has no value to answer with.
const NO_VALUE = 0

export class RequestPage {
  /** The request that the last {@link look} found. */
  request: IoRequest | undefined
  /** What was wrong with the slot that the last {@link look} found. */
  problem = ""
  /** Where each step that the Service VM takes is written, while somebody reads. */
  transitions: TransitionRing | undefined
  /** The VM's own time; without it, claims by hand are dated by who makes them. */
  clock: Clock.Clock | undefined
  /** Called when a request that was claimed by hand is over. */
  onHandClaimOver: (vcpu: number) => void = () => undefined

  readonly vcpus: number
  protected readonly page: ServicePage
  private readonly notify: (vcpu: number) => number
  private readonly words = new Int32Array(SlotWords.SLOT_WORDS)
  private readonly held: Uint8Array
  private readonly polled: Uint8Array
  /** Completions of which the hypervisor refused to hear. */
  private readonly unheard: Uint8Array
  private readonly sizes: Uint8Array
  private readonly epochs: Float64Array
  private readonly handClaims: Array<HandClaim | undefined>
  private isShut = false

  /** `notify` tells the hypervisor of a completion; the result is that of the hypercall. */
  constructor(page: ServicePage, vcpus: number, notify: (vcpu: number) => number) {
    this.page = page
    this.vcpus = vcpus
    this.notify = notify
    this.held = new Uint8Array(vcpus)
    this.polled = new Uint8Array(vcpus)
    this.unheard = new Uint8Array(vcpus)
    this.sizes = new Uint8Array(vcpus)
    this.epochs = new Float64Array(vcpus)
    this.handClaims = Array.from({ length: vcpus }, () => undefined)
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
    if (this.isShut) return "NotPending"
    const state = this.stateCode(vcpu)
    // Guard: cve-2018-10981
    if (this.held[vcpu] === HELD) {
      if (state === Processing) return "NotPending"
      this.problem = `the slot is held as PROCESSING but its state became ${state}`
      return "Foreign"
    }
    // Guard: cve-2018-10981
    if (!this.isOffered(vcpu, state)) {
      if (state === Complete && this.unheard[vcpu] === 1) this.tellFinished(vcpu)
      if (this.isElsewhere(state)) return "NotPending"
      this.problem = state === Processing
        ? "the slot says PROCESSING but nobody holds it"
        : `${state} is not a request state`
      return "Foreign"
    }
    this.page.fetchRequest(vcpu * SLOT_BYTES, this.words)
    const request = SlotWords.decode(this.words, vcpu)
    if (typeof request === "string") {
      this.request = undefined
      this.problem = request
      this.keep(vcpu, 8)
      return "Malformed"
    }
    this.request = request
    this.keep(vcpu, SlotWords.isWrite(this.words) ? NO_VALUE : request.size)
    return "Request"
  }

  /** What the completion will need, from the copy: by then the page may say anything. */
  // Guard: xsa-155
  private keep(vcpu: number, size: number): void {
    this.sizes[vcpu] = size
    this.polled[vcpu] = SlotWords.isPolled(this.words) ? 1 : 0
  }

  /** What a slot shows, for people: it changes nothing of what was looked at. */
  peek(vcpu: number): { readonly code: number; readonly request: IoRequest | undefined; readonly problem: string } {
    const code = this.isShut ? Free : this.stateCode(vcpu)
    if (!this.isOffered(vcpu, code)) return { code, request: undefined, problem: "" }
    const words = new Int32Array(SlotWords.SLOT_WORDS)
    this.page.fetchRequest(vcpu * SLOT_BYTES, words)
    const request = SlotWords.decode(words, vcpu)
    return typeof request === "string" ? { code, request: undefined, problem: request } : { code, request, problem: "" }
  }

  /** Takes the request that was just looked at: PENDING -> PROCESSING. The result is the claim's epoch. */
  claim(vcpu: number): number {
    this.held[vcpu] = HELD
    const epoch = this.epochs[vcpu]! + 1
    this.epochs[vcpu] = epoch
    this.storeClaim(vcpu)
    if (this.transitions !== undefined) this.transitions.write(vcpu, epoch, StepCode.Claim)
    return epoch
  }

  /** As {@link claim}, by a program that serves requests itself. */
  claimByHand(vcpu: number, request: IoRequest, by: Clock.Clock): number {
    const epoch = this.claim(vcpu)
    const clock = this.clock ?? by
    this.handClaims[vcpu] = { epoch, request, clock, since: clock.currentTimeMillisUnsafe() }
    return epoch
  }

  /** The claim by hand that a slot is held under. */
  handClaim(vcpu: number): HandClaim | undefined {
    const claim = this.handClaims[vcpu]
    return claim !== undefined && claim.epoch === this.epochs[vcpu] ? claim : undefined
  }

  /** Answers the request that was just looked at without a client: PENDING -> COMPLETE. */
  answer(vcpu: number, value: IoValue): void {
    const epoch = this.epochs[vcpu]! + 1
    this.epochs[vcpu] = epoch
    this.finish(vcpu, value)
    if (this.transitions !== undefined) this.transitions.write(vcpu, epoch, StepCode.Answer)
  }

  /** Completes a claim: PROCESSING -> COMPLETE. The value is written before the state, the state before the notify. */
  complete(vcpu: number, epoch: number, value: IoValue): Completion {
    // Guard: stray-completion
    if (this.held[vcpu] !== HELD || this.epochs[vcpu] !== epoch) return "Stale"
    this.held[vcpu] = NOT_HELD
    this.epochs[vcpu] = epoch + 1
    const state = this.stateCode(vcpu)
    // Guard: cve-2018-10981
    if (state !== Processing) {
      this.problem = `the slot was claimed but its state became ${state} before completion`
      return "Foreign"
    }
    if (this.transitions !== undefined) this.transitions.write(vcpu, epoch, StepCode.Complete)
    this.finish(vcpu, value)
    return "Completed"
  }

  completeByHand(vcpu: number, epoch: number, value: IoValue): Completion {
    const completion = this.complete(vcpu, epoch, value)
    if (completion !== "Stale") this.onHandClaimOver(vcpu)
    return completion
  }

  /** The page goes: whoever still has a handle of it finds no request, and completes none. */
  shut(): void {
    this.isShut = true
    this.forgetAll()
  }

  /** Forgets every claim without touching the page: what the hypervisor's own clearing of the slots asks for. */
  forgetAll(): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      this.held[vcpu] = NOT_HELD
      this.unheard[vcpu] = 0
      this.epochs[vcpu] = this.epochs[vcpu]! + 1
    }
  }

  private finish(vcpu: number, value: IoValue): void {
    const base = vcpu * SLOT_BYTES
    const size = this.sizes[vcpu]!
    if (size !== NO_VALUE) this.page.store32(base + Slot.REQUEST_VALUE_OFFSET, SlotWords.lowWord(value, size))
    // The word above is the bus number in a PCI request; only 8-byte accesses own it.
    if (size === 8) this.page.store32(base + Slot.REQUEST_VALUE_OFFSET + 4, SlotWords.highWord(value, size))
    if (this.storeCompletion(vcpu)) this.tellFinished(vcpu)
  }

  /** Whether a slot that nobody here holds shows a request for us. */
  isOffered(_vcpu: number, state: number): boolean {
    return state === Pending
  }

  /** Whether a slot that shows no request for us is in the hands of somebody else, as it should be. */
  isElsewhere(state: number): boolean {
    return state === Free || state === Complete
  }

  protected storeClaim(vcpu: number): void {
    this.page.store32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Processing)
  }

  /** Says on the page that the request is finished, and tells whether it must be said by a notification, too. */
  protected storeCompletion(vcpu: number): boolean {
    this.page.store32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Complete)
    return this.polled[vcpu] === 0
  }

  /** A vCPU whose completion was not heard of waits; it is told again at the next look. */
  private tellFinished(vcpu: number): void {
    this.unheard[vcpu] = this.notify(vcpu) < 0 ? 1 : 0
  }
}
