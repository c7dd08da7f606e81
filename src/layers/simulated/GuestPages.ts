/**
 * The memory map of one simulated VM, page by page: which Service VM page stands behind a guest page, with which
 * rights. Entries lie in tables of 512 pages (2 MiB) that exist only where something is mapped.
 */
import { MEMORY_ACCESS_MASK, MemoryAccess } from "../../domain/abi/MemoryRegionBatch.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"

const PAGES_PER_TABLE = 512
const MAPPED = 0x8

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

  /** Maps pages one after the other; a page that is mapped keeps what it has, as in ACRN. */
  map(guestAddress: number, serviceAddress: number, bytes: number, attributes: number): void {
    const flags = MAPPED | attributes & MEMORY_ACCESS_MASK
    for (let offset = 0; offset < bytes; offset += PAGE_BYTES) {
      const page = (guestAddress + offset) / PAGE_BYTES
      const key = Math.floor(page / PAGES_PER_TABLE)
      let table = this.tables.get(key)
      if (table === undefined) {
        table = new Float64Array(PAGES_PER_TABLE)
        this.tables.set(key, table)
      }
      const index = page % PAGES_PER_TABLE
      if (table[index] === 0) table[index] = serviceAddress + offset + flags
    }
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
    const entry = this.tables.get(Math.floor(page / PAGES_PER_TABLE))?.[page % PAGES_PER_TABLE] ?? 0
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
}
