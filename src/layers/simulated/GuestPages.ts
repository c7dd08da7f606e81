/**
 * The memory map of one simulated VM, page by page: which Service VM page stands behind a guest page, with which
 * rights. Entries lie in tables of 512 pages (2 MiB) that exist only where something is mapped.
 */
import { MEMORY_ACCESS_MASK, MemoryAccess } from "../../domain/abi/MemoryRegionBatch.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"

const PAGES_PER_TABLE = 512

/** Service VM memory as the simulator reaches it: raw, for it is the hypervisor. */
export interface PageSource {
  /** The bytes of the page that begins at a service address. */
  readonly page: (serviceAddress: number) => Uint8Array | undefined
  /** Whether all of `[serviceAddress, serviceAddress + bytes)` is memory. */
  readonly holds: (serviceAddress: number, bytes: number) => boolean
}

/** One guest page as a vCPU uses it. */
export interface GuestPage {
  readonly bytes: Uint8Array
  readonly writable: boolean
  readonly executable: boolean
}

export class GuestPages {
  private readonly tables = new Map<number, Float64Array>()
  private readonly source: PageSource

  constructor(source: PageSource) {
    this.source = source
  }

  /** Whether there is Service VM memory for all of `[serviceAddress, serviceAddress + bytes)`. */
  canMap(serviceAddress: number, bytes: number): boolean {
    return this.source.holds(serviceAddress, bytes)
  }

  /**
   * Maps pages one after the other; a page that is mapped keeps what it has, as in ACRN. A page without any right is not
   * mapped: an entry of ACRN's page tables is there by its rights alone.
   */
  map(guestAddress: number, serviceAddress: number, bytes: number, attributes: number): void {
    const rights = attributes & MEMORY_ACCESS_MASK
    if (rights === 0) return
    const end = (guestAddress + bytes) / PAGE_BYTES
    let entry = serviceAddress + rights
    for (let page = guestAddress / PAGE_BYTES; page < end;) {
      const table = this.tableOf(page)
      const last = Math.min(PAGES_PER_TABLE, page % PAGES_PER_TABLE + end - page)
      for (let index = page % PAGES_PER_TABLE; index < last; index++) {
        if (table[index] === 0) table[index] = entry
        entry += PAGE_BYTES
        page++
      }
    }
  }

  /** Whether each page of `[guestAddress, guestAddress + bytes)` is mapped. */
  isMapped(guestAddress: number, bytes: number): boolean {
    const end = (guestAddress + bytes) / PAGE_BYTES
    // Ends at the first hole, so no later than after all that is mapped: a range may be as large as the address space.
    for (let page = guestAddress / PAGE_BYTES; page < end; page++) {
      if (this.entryOf(page) === 0) return false
    }
    return true
  }

  unmap(guestAddress: number, bytes: number): void {
    const first = guestAddress / PAGE_BYTES
    const end = (guestAddress + bytes) / PAGE_BYTES
    // Over the tables that exist, not over the range: a guest's range may be as large as its address space.
    for (const [key, table] of this.tables) {
      const start = key * PAGES_PER_TABLE
      table.fill(0, Math.max(0, first - start), Math.max(0, Math.min(PAGES_PER_TABLE, end - start)))
    }
  }

  clear(): void {
    this.tables.clear()
  }

  /** The guest page with this number; `undefined` is a hole, and so MMIO. */
  find(page: number): GuestPage | undefined {
    const entry = this.entryOf(page)
    if (entry === 0) return undefined
    const flags = entry % PAGE_BYTES
    if ((flags & MemoryAccess.Read) === 0) return undefined
    const bytes = this.source.page(entry - flags)
    return bytes === undefined ? undefined : {
      bytes,
      writable: (flags & MemoryAccess.Write) !== 0,
      executable: (flags & MemoryAccess.Execute) !== 0
    }
  }

  private entryOf(page: number): number {
    return this.tables.get(Math.floor(page / PAGES_PER_TABLE))?.[page % PAGES_PER_TABLE] ?? 0
  }

  private tableOf(page: number): Float64Array {
    const key = Math.floor(page / PAGES_PER_TABLE)
    const known = this.tables.get(key)
    if (known !== undefined) return known
    const table = new Float64Array(PAGES_PER_TABLE)
    this.tables.set(key, table)
    return table
  }
}
