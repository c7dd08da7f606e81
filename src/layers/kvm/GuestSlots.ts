/**
 * A VM's memory map, by ACRN's rules, in the kernel's terms: memory slots, each a run of guest pages over a run of this
 * process's memory.
 *
 * A page that is mapped keeps what it has; unmapping takes what is mapped wholly, or nothing. Pages that cannot be read
 * are holes to the guest, as they are to ACRN's.
 */
import { MEMORY_ACCESS_MASK, MemoryAccess } from "../../domain/abi/MemoryRegionBatch.ts"
import { Errno } from "../../domain/Errno.ts"

/** A run of this process's memory. */
export interface HostRun {
  readonly bytes: number
  readonly address: number
  /** Whatever must live as long as the guest has the memory. */
  readonly owner: unknown
}

export interface GuestSlotsOptions {
  /** Tells the kernel of a slot, `bytes` of 0 taking it away: 0, or a negative errno. */
  readonly setSlot: (slot: number, guest: number, bytes: number, host: number, isReadOnly: boolean) => number
  /** The memory behind `[serviceAddress, serviceAddress + bytes)`; `undefined` when some of it is none. */
  readonly host: (serviceAddress: number, bytes: number) => ReadonlyArray<HostRun> | undefined
  readonly maxSlots: number
}

interface Extent {
  readonly guest: number
  readonly end: number
  readonly host: number
  readonly rights: number
  readonly owner: unknown
  /** `undefined` is a hole to the guest. */
  readonly slot: number | undefined
}

/** The slots of one VM, by number, as the kernel has them. */
export interface SlotView {
  readonly slot: number
  readonly guest: number
  readonly bytes: number
  /** Where it is in this process. */
  readonly host: number
}

export class GuestSlots {
  private readonly options: GuestSlotsOptions
  /** By address, never overlapping. */
  private extents: ReadonlyArray<Extent> = []
  private freeSlots: Array<number> = []
  private nextSlot = 0

  constructor(options: GuestSlotsOptions) {
    this.options = options
  }

  /** Slots that the guest can reach. */
  get slots(): ReadonlyArray<SlotView> {
    return this.extents.flatMap(({ end, guest, host, slot }) =>
      slot === undefined ? [] : [{ slot, guest, bytes: end - guest, host }]
    )
  }

  /** Whether what the guest writes at an address stays in memory. */
  isWritable(address: number): boolean {
    return this.meeting(address, address + 1).some(({ rights, slot }) =>
      slot !== undefined && (rights & MemoryAccess.Write) !== 0
    )
  }

  /** Tells the kernel of every slot again, since what it shall do with them changed: 0, or a negative errno. */
  retell(): number {
    for (const { end, guest, host, rights, slot } of this.extents) {
      if (slot === undefined) continue
      const result = this.options.setSlot(slot, guest, end - guest, host, (rights & MemoryAccess.Write) === 0)
      if (result < 0) return result
    }
    return 0
  }

  /** Maps what is not mapped yet: 0, or a negative errno and nothing changed. */
  map(guest: number, service: number, bytes: number, attributes: number): number {
    const runs = this.options.host(service, bytes)
    if (runs === undefined) return -Errno.EINVAL
    const rights = attributes & MEMORY_ACCESS_MASK
    if (rights === 0) return 0
    const added: Array<Extent> = []
    let at = guest
    for (const run of runs) {
      for (const [start, end] of this.gaps(at, at + run.bytes)) {
        const result = this.add(added, start, end, run.address + start - at, rights, run.owner)
        if (result < 0) {
          this.extents = [...this.extents, ...this.undo(added, [])].toSorted((a, b) => a.guest - b.guest)
          return result
        }
      }
      at += run.bytes
    }
    this.extents = [...this.extents, ...added].toSorted((a, b) => a.guest - b.guest)
    return 0
  }

  /** Whether taking this away leaves a part of a slot, which the kernel can only be told of by making it anew. */
  isSplitBy(guest: number, bytes: number): boolean {
    return this.meeting(guest, guest + bytes).some((extent) => extent.guest < guest || extent.end > guest + bytes)
  }

  /** Takes memory away: 0, or a negative errno and nothing changed. */
  unmap(guest: number, bytes: number): number {
    const end = guest + bytes
    if (this.gaps(guest, end).length > 0) return -Errno.EINVAL
    const met = this.meeting(guest, end)
    const removed: Array<Extent> = []
    const kept: Array<Extent> = []
    const result = this.removeAll(met, removed) || this.keepOutside(removed, guest, end, kept)
    const left = result < 0 ? this.undo(kept, removed) : kept
    this.extents = [...this.extents.filter((extent) => !removed.includes(extent)), ...left].toSorted((a, b) =>
      a.guest - b.guest
    )
    return result
  }

  private removeAll(extents: ReadonlyArray<Extent>, removed: Array<Extent>): number {
    for (const extent of extents) {
      const result = this.removeSlot(extent)
      if (result < 0) return result
      removed.push(extent)
    }
    return 0
  }

  /** Adds what of the extents is not in `[start, end)`. */
  private keepOutside(extents: ReadonlyArray<Extent>, start: number, end: number, kept: Array<Extent>): number {
    for (const extent of extents) {
      const result = this.addPart(kept, extent, extent.guest, start) || this.addPart(kept, extent, end, extent.end)
      if (result < 0) return result
    }
    return 0
  }

  /** Takes away what was added, and adds what was taken away; what the guest has then. */
  private undo(added: ReadonlyArray<Extent>, removed: ReadonlyArray<Extent>): Array<Extent> {
    const left = added.filter((extent) => this.removeSlot(extent) < 0)
    // What the kernel does not take back either is a hole.
    for (const extent of removed) this.addPart(left, extent, extent.guest, extent.end)
    return left
  }

  private meeting(start: number, end: number): ReadonlyArray<Extent> {
    return this.extents.filter((extent) => extent.guest < end && extent.end > start)
  }

  /** What of `[start, end)` is not mapped. */
  private gaps(start: number, end: number): ReadonlyArray<readonly [start: number, end: number]> {
    const gaps: Array<readonly [number, number]> = []
    let at = start
    for (const extent of this.meeting(start, end)) {
      if (extent.guest > at) gaps.push([at, extent.guest])
      at = extent.end
    }
    if (at < end) gaps.push([at, end])
    return gaps
  }

  private addPart(into: Array<Extent>, extent: Extent, start: number, end: number): number {
    return start < end
      ? this.add(into, start, end, extent.host + start - extent.guest, extent.rights, extent.owner)
      : 0
  }

  private add(
    into: Array<Extent>,
    guest: number,
    end: number,
    host: number,
    rights: number,
    owner: unknown
  ): number {
    const extent = { guest, end, host, rights, owner }
    if ((rights & MemoryAccess.Read) === 0) {
      into.push({ ...extent, slot: undefined })
      return 0
    }
    const slot = this.freeSlots.pop() ?? (this.nextSlot < this.options.maxSlots ? this.nextSlot++ : undefined)
    if (slot === undefined) return -Errno.ENOMEM
    const result = this.options.setSlot(slot, guest, end - guest, host, (rights & MemoryAccess.Write) === 0)
    if (result < 0) {
      this.freeSlots.push(slot)
      return result
    }
    into.push({ ...extent, slot })
    return 0
  }

  /** 0, or a negative errno, and the guest has it still. */
  private removeSlot({ guest, slot }: Extent): number {
    if (slot === undefined) return 0
    const result = this.options.setSlot(slot, guest, 0, 0, false)
    if (result < 0) return result
    this.freeSlots.push(slot)
    return 0
  }
}
