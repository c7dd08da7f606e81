/**
 * An I/O request page from the hypervisor's side, for laws that play the hypervisor: they fill slots, set states and
 * change words. What they do is not part of the slots' history, which tells what the Service VM saw and did.
 */
import * as Result from "effect/Result"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import { PAGE_BYTES, SLOT_BYTES } from "../../domain/Limits.ts"
import type { ServiceMemory } from "../../services/ServiceMemory.ts"

const LITTLE_ENDIAN = true
const UNION_BYTES = 64

export class PageByHand {
  private readonly memory: ServiceMemory["Service"]
  private readonly address: number
  private readonly word = new Uint8Array(4)
  private readonly wordView = new DataView(this.word.buffer)

  constructor(memory: ServiceMemory["Service"], address: number) {
    this.memory = memory
    this.address = address
  }

  /** All of the page as it stands. */
  bytes(): Uint8Array {
    const bytes = new Uint8Array(PAGE_BYTES)
    Result.getOrThrow(this.memory.read(this.address, bytes))
    return bytes
  }

  /** A word of a slot, by its offset in the slot, as a signed number. */
  load(slot: number, offset: number): number {
    Result.getOrThrow(this.memory.read(this.address + slot * SLOT_BYTES + offset, this.word))
    return this.wordView.getInt32(0, LITTLE_ENDIAN)
  }

  store(slot: number, offset: number, value: number): void {
    this.wordView.setInt32(0, value, LITTLE_ENDIAN)
    Result.getOrThrow(this.memory.write(this.address + slot * SLOT_BYTES + offset, this.word))
  }

  state(slot: number): number {
    return this.load(slot, Slot.SLOT_STATE_OFFSET)
  }

  setState(slot: number, code: number): void {
    this.store(slot, Slot.SLOT_STATE_OFFSET, code)
  }

  /** Writes a slot wholly: the request, and the state with it. */
  fill(slot: number, bytes: Uint8Array): void {
    Result.getOrThrow(this.memory.write(this.address + slot * SLOT_BYTES, bytes))
  }
}

/** Where two pages of bytes part, in words for people; `undefined` when they are the same. */
export const difference = (found: Uint8Array, expected: Uint8Array): string | undefined => {
  for (let at = 0; at < expected.length; at++) {
    if (found[at] !== expected[at]) {
      return `byte ${at % SLOT_BYTES} of slot ${Math.floor(at / SLOT_BYTES)} is ${found[at]}, not ${expected[at]}`
    }
  }
  return undefined
}

/** The 256 bytes of a slot that shows a request, laid out by the ABI's own tables. */
export const slotBytes = (request: IoRequest, state: number, isPolled = false): Uint8Array => {
  const { reqs, type } = unionOf(request)
  return Result.getOrThrow(Slot.IoRequestSlot.encode({
    type,
    completionPolling: isPolled ? 1 : 0,
    reqs,
    kernelHandled: 0,
    processed: state
  }))
}

const unionOf = (request: IoRequest): { readonly type: number; readonly reqs: Uint8Array } => {
  const direction = "value" in request ? Slot.DirectionCode.Write : Slot.DirectionCode.Read
  const value = "value" in request ? request.value : 0
  const size = BigInt(request.size)
  const reqs = new Uint8Array(UNION_BYTES)
  switch (request._tag) {
    case "PortRead":
    case "PortWrite": {
      const address = BigInt(request.port)
      reqs.set(Result.getOrThrow(Slot.PioRequest.encode({ direction, address, size, value: Number(value) })))
      return { type: Slot.RequestTypeCode.PortIo, reqs }
    }
    case "MmioRead":
    case "MmioWrite": {
      const address = BigInt(request.address)
      reqs.set(Result.getOrThrow(Slot.MmioRequest.encode({ direction, address, size, value: BigInt(value) })))
      return { type: Slot.RequestTypeCode.Mmio, reqs }
    }
    case "PciRead":
    case "PciWrite": {
      const { bus, device: dev, function: func, register: reg } = request
      reqs.set(
        Result.getOrThrow(Slot.PciRequest.encode({ direction, size, value: Number(value), bus, dev, func, reg }))
      )
      return { type: Slot.RequestTypeCode.PciConfig, reqs }
    }
  }
}
