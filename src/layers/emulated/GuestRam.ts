/**
 * Guest RAM, which lies inside the core's own memory.
 *
 * Copies go in and out; a raw view is never given away, because the core must hear of every write: it may have compiled
 * the code that stood there.
 *
 * @since 0.1.0
 */
import type { CoreMemory } from "./CoreMemory.ts"
import { CpuError } from "./CpuError.ts"

/**
 * Access to guest RAM; offsets are guest physical addresses. Every operation throws a `CpuError` of reason `OutOfRange`
 * when it is not wholly inside `[0, byteLength)`, and `Misaligned` for a word at an offset that is no multiple of 4;
 * nothing is changed then. May be used at any time, also while the CPU waits within an access.
 *
 * The bytes at 0xA0000 to 0xBFFFF are there, but the guest does not see them: for the guest that is MMIO.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestRam {
  /** Bytes of RAM; 0 after the CPU was disposed of. */
  readonly byteLength: number
  /** Reads a word, as a signed 32-bit number. */
  readonly load32: (offset: number) => number
  /** Writes a word, of which the low 32 bits count. */
  readonly store32: (offset: number, value: number) => void
  /** A copy of `length` bytes at `offset`. */
  readonly read: (offset: number, length: number) => Uint8Array<ArrayBuffer>
  /** Fills `target` with the bytes at `offset`. */
  readonly readInto: (offset: number, target: Uint8Array) => void
  /** Copies `bytes` in at `offset`. */
  readonly write: (offset: number, bytes: Uint8Array) => void
  /** Sets `length` bytes at `offset` to `byte`. */
  readonly fill: (offset: number, length: number, byte: number) => void
}

/**
 * What makes and ends a {@link GuestRam}.
 *
 * @category models
 * @since 0.1.0
 */
export interface OwnedGuestRam {
  readonly ram: GuestRam
  /** Lets go of the memory. */
  readonly release: () => void
}

interface Owned {
  readonly memory: CoreMemory
  readonly written: (start: number, end: number) => void
}

/**
 * RAM of `byteLength` bytes at byte `base` of the core's memory; `base` is a multiple of 4. `written` hears of each
 * range `[start, end)` after a write.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeGuestRam = (
  memory: CoreMemory,
  base: number,
  byteLength: number,
  written: (start: number, end: number) => void
): OwnedGuestRam => {
  let owned: Owned | undefined = { memory, written }
  const inside = (offset: number, bytes: number): Owned => {
    const integers = Number.isInteger(offset) && Number.isInteger(bytes)
    if (owned === undefined || !integers || offset < 0 || bytes < 0 || offset + bytes > byteLength) {
      const available = owned === undefined ? 0 : byteLength
      throw new CpuError({ reason: { _tag: "OutOfRange", offset, bytes, available } })
    }
    return owned
  }
  const aligned = (offset: number): Owned => {
    const found = inside(offset, 4)
    if (offset % 4 !== 0) {
      throw new CpuError({ reason: { _tag: "Misaligned", offset } })
    }
    return found
  }
  const ram: GuestRam = {
    get byteLength() {
      return owned === undefined ? 0 : byteLength
    },
    load32: (offset) => aligned(offset).memory.words[(base + offset) / 4] ?? 0,
    store32: (offset, value) => {
      const found = aligned(offset)
      found.memory.words[(base + offset) / 4] = value
      found.written(offset, offset + 4)
    },
    read: (offset, length) => {
      const { bytes } = inside(offset, length).memory
      return new Uint8Array(bytes.subarray(base + offset, base + offset + length))
    },
    readInto: (offset, target) => {
      const { bytes } = inside(offset, target.length).memory
      target.set(bytes.subarray(base + offset, base + offset + target.length))
    },
    write: (offset, source) => {
      const found = inside(offset, source.length)
      found.memory.bytes.set(source, base + offset)
      if (source.length > 0) {
        found.written(offset, offset + source.length)
      }
    },
    fill: (offset, length, byte) => {
      const found = inside(offset, length)
      found.memory.bytes.fill(byte, base + offset, base + offset + length)
      if (length > 0) {
        found.written(offset, offset + length)
      }
    }
  }
  return {
    ram,
    release: () => {
      owned = undefined
    }
  }
}
