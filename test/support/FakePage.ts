/**
 * A fake of the shared page: one that lies. It holds the words of 16 slots and lets a test act between any two accesses,
 * as a hostile hypervisor or guest would.
 */
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../src/domain/Limits.ts"
import type { ServicePage } from "../../src/services/ServiceMemory.ts"

export const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

export type Access = "load" | "store" | "fetch"

export class FakePage implements ServicePage {
  readonly words = new Int32Array(1024).fill(0)
  /** Each access, oldest first: its kind, and the offset of its first byte. */
  readonly accesses: Array<{ readonly access: Access; readonly offset: number }> = []
  /** Called after each access was done. */
  afterAccess: (access: Access, offset: number) => void = () => undefined

  constructor() {
    for (let vcpu = 0; vcpu < 16; vcpu++) this.setState(vcpu, Free)
  }

  load32(offset: number): number {
    const value = this.words[offset / 4]!
    this.note("load", offset)
    return value
  }

  store32(offset: number, value: number): void {
    this.words[offset / 4] = value
    this.note("store", offset)
  }

  fetchRequest(offset: number, into: Int32Array): void {
    const slot = offset / 4
    into.set(this.words.subarray(slot, slot + 2), 0)
    into.set(this.words.subarray(slot + 16, slot + 27), 16)
    this.note("fetch", offset)
  }

  storeRequest(offset: number, from: Int32Array): void {
    const slot = offset / 4
    this.words.set(from.subarray(0, 2), slot)
    this.words.set(from.subarray(16, 27), slot + 16)
    this.note("store", offset)
  }

  state(vcpu: number): number {
    return this.words[(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET) / 4]!
  }

  setState(vcpu: number, state: number): void {
    this.words[(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET) / 4] = state
  }

  /** A word of a slot, by its offset in the slot. */
  word(vcpu: number, offset: number): number {
    return this.words[(vcpu * SLOT_BYTES + offset) / 4]!
  }

  setWord(vcpu: number, offset: number, value: number): void {
    this.words[(vcpu * SLOT_BYTES + offset) / 4] = value
  }

  /** The answer as the hypervisor reads it: two words, low first. */
  answer(vcpu: number): readonly [low: number, high: number] {
    return [
      this.word(vcpu, Slot.REQUEST_VALUE_OFFSET) >>> 0,
      this.word(vcpu, Slot.REQUEST_VALUE_OFFSET + 4) >>> 0
    ]
  }

  /** Fills a slot as a hypervisor does and makes it PENDING. */
  submit(vcpu: number, request: {
    readonly type?: number
    readonly direction?: number
    readonly address?: number
    readonly size?: number
    readonly value?: number
    readonly polling?: boolean
  }): void {
    this.setWord(vcpu, Slot.SLOT_TYPE_OFFSET, request.type ?? Slot.RequestTypeCode.PortIo)
    this.setWord(vcpu, Slot.SLOT_COMPLETION_POLLING_OFFSET, request.polling === true ? 1 : 0)
    this.setWord(vcpu, Slot.REQUEST_DIRECTION_OFFSET, request.direction ?? Slot.DirectionCode.Read)
    const address = request.address ?? 0x100
    this.setWord(vcpu, Slot.REQUEST_ADDRESS_OFFSET, address % 2 ** 32 | 0)
    this.setWord(vcpu, Slot.REQUEST_ADDRESS_OFFSET + 4, Math.floor(address / 2 ** 32))
    this.setWord(vcpu, Slot.REQUEST_SIZE_OFFSET, request.size ?? 1)
    this.setWord(vcpu, Slot.REQUEST_SIZE_OFFSET + 4, 0)
    this.setWord(vcpu, Slot.REQUEST_VALUE_OFFSET, (request.value ?? 0) | 0)
    this.setWord(vcpu, Slot.REQUEST_VALUE_OFFSET + 4, 0)
    this.setState(vcpu, Pending)
  }

  private note(access: Access, offset: number): void {
    this.accesses.push({ access, offset })
    this.afterAccess(access, offset)
  }
}
