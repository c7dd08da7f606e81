/**
 * The guest pages of one VM that were written: what the kernel noted of each memory slot, and what this process wrote
 * itself.
 */
import * as Result from "effect/Result"
import { PAGE_BYTES } from "../../../domain/Limits.ts"
import type { Libc } from "../../native/Libc.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import { DirtyLog } from "../abi/Memory.ts"
import type { SlotView } from "../GuestSlots.ts"

const WORD_BITS = 32

export interface DirtyPagesOptions {
  readonly ask: (request: number, structure: Uint8Array) => number
  readonly slots: () => ReadonlyArray<SlotView>
  readonly addressOf: Libc["addressOf"]
}

export class DirtyPages {
  private readonly options: DirtyPagesOptions
  /** Pages that the kernel does not tell of, or not any more. */
  private readonly noted = new Set<number>()

  constructor(options: DirtyPagesOptions) {
    this.options = options
  }

  /** The pages since it was last asked, or the negative errno with which the kernel refused; none is lost by that. */
  take(): ReadonlyArray<number> | number {
    const pages: Array<number> = []
    const result = this.ask(pages)
    if (result < 0) {
      for (const page of pages) this.noted.add(page)
      return result
    }
    // Slots come by address, and never overlap.
    if (this.noted.size === 0) return pages
    const all = new Set([...pages, ...this.noted])
    this.noted.clear()
    return [...all].toSorted((a, b) => a - b)
  }

  /** Before slots go: the kernel forgets with a slot what it noted of it. */
  keep(): void {
    const pages: Array<number> = []
    this.ask(pages)
    for (const page of pages) this.noted.add(page)
  }

  /** This process wrote to its memory at `[address, address + bytes)`. */
  noteHostWrite(address: number, bytes: number): void {
    for (const { bytes: size, guest, host } of this.options.slots()) {
      const start = Math.max(address, host)
      const end = Math.min(address + bytes, host + size)
      for (let at = start - (start - host) % PAGE_BYTES; at < end; at += PAGE_BYTES) {
        this.noted.add((guest + at - host) / PAGE_BYTES)
      }
    }
  }

  private ask(into: Array<number>): number {
    for (const { bytes, guest, slot } of this.options.slots()) {
      // In whole words of 64 bits. From a buffer of its own: a small array's bytes could be moved.
      const bitmap = new Uint8Array(new ArrayBuffer(Math.ceil(bytes / PAGE_BYTES / 64) * 8))
      const dirtyBitmap = BigInt(this.options.addressOf(bitmap))
      const log = Result.getOrThrow(DirtyLog.encode({ slot, dirtyBitmap }))
      const result = this.options.ask(KvmIoctl.GET_DIRTY_LOG, log)
      if (result < 0) return result
      const first = guest / PAGE_BYTES
      for (const [index, word] of new Uint32Array(bitmap.buffer).entries()) {
        for (let left = word; left !== 0; left &= left - 1) {
          into.push(first + index * WORD_BITS + 31 - Math.clz32(left & -left))
        }
      }
    }
    return 0
  }
}
