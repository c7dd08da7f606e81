/**
 * The oracle of law 18: the window as an array of pages, each with its bytes and rights or nothing, and the guest's
 * accesses byte by byte.
 */
import { MemoryAccess } from "../../domain/abi/MemoryRegionBatch.ts"
import { Errno } from "../../domain/Errno.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { deviceByte, FIRST_BYTES, HOME_PAGES, type MapOperation, type MappingCase, WINDOW } from "./MappingCase.ts"

/** A byte that arrived as a request. */
export interface Touch {
  readonly isWrite: boolean
  readonly address: number
  readonly byte: number
}

export interface Seen {
  /** The accumulator after each load. */
  readonly words: ReadonlyArray<bigint>
  readonly touches: ReadonlyArray<Touch>
  readonly results: ReadonlyArray<number>
  /** Home pages, then service pages. */
  readonly pages: ReadonlyArray<Uint8Array>
  readonly returned: boolean
}

interface Mapped {
  readonly bytes: Uint8Array
  readonly rights: number
}

const isReadable = (mapped: Mapped | undefined): mapped is Mapped =>
  mapped !== undefined && (mapped.rights & MemoryAccess.Read) !== 0

/** What the guest must see: the map as an array, page by page and byte by byte. */
export const expectedOf = ({ called, steps }: MappingCase, { mapping }: HypervisorProfile): Seen => {
  const pages = FIRST_BYTES.map((bytes) => bytes.slice())
  const window: Array<Mapped | undefined> = pages.slice(0, HOME_PAGES).map((bytes) => ({
    bytes,
    rights: MemoryAccess.All
  }))
  const words: Array<bigint> = []
  const touches: Array<Touch> = []
  const results: Array<number> = []
  let accumulator = 0n

  const apply = ({ bytes, isAdd, isSkewed, page, rights, service }: MapOperation): number => {
    if (mapping === "OneBlockFromZero" || bytes % PAGE_BYTES !== 0) return -Errno.EINVAL
    if (isAdd && service === "Nowhere" && bytes > 0) return -Errno.EINVAL
    // Addresses are rounded up to a page.
    const first = isSkewed ? page + 1 : page
    const count = bytes / PAGE_BYTES
    // Only what is wholly mapped can be taken away.
    const isWhole = Array.from({ length: count }, (_, index) => window[first + index]).every((each) =>
      each !== undefined
    )
    if (!isAdd && !isWhole) return -Errno.EINVAL
    for (let index = 0; index < count; index++) {
      if (!isAdd) window[first + index] = undefined
      // A page that is mapped keeps what it has.
      else window[first + index] ??= { bytes: pages[HOME_PAGES + Number(service) + index]!, rights }
    }
    return 0
  }
  const batch = (operations: ReadonlyArray<MapOperation>): number => {
    let result = -Errno.EPERM
    for (const operation of operations) {
      result = apply(operation)
      if (result < 0) break
    }
    return result
  }
  const read = (address: number): number => {
    const mapped = window[Math.floor((address - WINDOW) / PAGE_BYTES)]
    if (isReadable(mapped)) return mapped.bytes[address % PAGE_BYTES]!
    const byte = deviceByte(address)
    touches.push({ isWrite: false, address, byte })
    return byte
  }
  const write = (address: number, byte: number): void => {
    const mapped = window[Math.floor((address - WINDOW) / PAGE_BYTES)]
    if (isReadable(mapped) && (mapped.rights & MemoryAccess.Write) !== 0) mapped.bytes[address % PAGE_BYTES] = byte
    else touches.push({ isWrite: true, address, byte })
  }

  for (const [index, step] of steps.entries()) {
    switch (step._tag) {
      case "Batch":
        accumulator = BigInt(index)
        results.push(batch(step.operations))
        break
      case "Load": {
        // 4 bytes clear those above them.
        const bytes = wordBytes(step.size < 4 ? accumulator : 0n)
        for (let i = 0; i < step.size; i++) bytes[i] = read(WINDOW + step.offset + i)
        accumulator = new DataView(bytes.buffer).getBigUint64(0, true)
        words.push(accumulator)
        break
      }
      case "Store":
        accumulator = step.value
        for (let i = 0; i < step.size; i++) write(WINDOW + step.offset + i, wordBytes(step.value)[i]!)
        break
    }
  }
  const target = window[called]
  return {
    words,
    touches,
    results,
    pages,
    returned: isReadable(target) && (target.rights & MemoryAccess.Execute) !== 0
  }
}

export const wordBytes = (word: bigint): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, word, true)
  return bytes
}
