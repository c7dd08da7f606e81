/**
 * Who owns an address: the three tables that the dispatcher looks requests up in, as plain data structures that know
 * no device. An access is found only when one range holds all of its bytes.
 *
 * Callers keep ranges disjoint with `IoRange.overlaps`; the tables do not check again.
 *
 * @since 0.1.0
 */
import type { MmioRange, PciFunctionRange, PortRange } from "./IoRange.ts"

interface Owned<A> {
  readonly start: number
  readonly end: number
  readonly owner: A
}

const PORTS_PER_LEAF = 256

/**
 * Ports to owners in two table look-ups. Leaves of 256 ports exist only where something is registered.
 *
 * @category models
 * @since 0.1.0
 */
export class PortMap<A> {
  private readonly leaves: Array<Array<Owned<A> | undefined> | undefined> = []

  /** The owner of the ports `[port, port + bytes)`, if one range holds them all. */
  find(port: number, bytes: number): A | undefined {
    const entry = this.leaves[port >>> 8]?.[port & 0xff]
    return entry === undefined || port + bytes - 1 > entry.end ? undefined : entry.owner
  }

  add(range: typeof PortRange.Type, owner: A): void {
    const entry: Owned<A> = { start: range.start, end: range.end, owner }
    for (let port: number = range.start; port <= range.end; port++) {
      const leaf = this.leaves[port >>> 8] ??= Array.from({ length: PORTS_PER_LEAF }, () => undefined)
      leaf[port & 0xff] = entry
    }
  }

  remove(range: typeof PortRange.Type): void {
    for (let port: number = range.start; port <= range.end; port++) {
      const leaf = this.leaves[port >>> 8]
      if (leaf !== undefined) leaf[port & 0xff] = undefined
    }
  }
}

/**
 * Guest physical addresses to owners by binary search over sorted, disjoint ranges.
 *
 * @category models
 * @since 0.1.0
 */
export class MmioMap<A> {
  // Replaced as a whole, so that a look-up under way never sees a half-moved array.
  private entries: ReadonlyArray<Owned<A>> = []

  /** The owner of `[address, address + bytes)`, if one range holds it all. */
  find(address: number, bytes: number): A | undefined {
    const entries = this.entries
    let low = 0
    let high = entries.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const entry = entries[middle]!
      if (address < entry.start) high = middle - 1
      else if (address > entry.end) low = middle + 1
      else return address + bytes - 1 <= entry.end ? entry.owner : undefined
    }
    return undefined
  }

  add(range: typeof MmioRange.Type, owner: A): void {
    this.entries = [...this.entries, { start: range.start, end: range.end, owner }].toSorted((a, b) =>
      a.start - b.start
    )
  }

  remove(range: typeof MmioRange.Type): void {
    this.entries = this.entries.filter((entry) => entry.start !== range.start)
  }
}

/**
 * PCI functions to owners, with one owner for all functions that nobody claims more narrowly.
 *
 * @category models
 * @since 0.1.0
 */
export class PciMap<A> {
  private readonly functions = new Map<number, A>()
  private rest: A | undefined

  find(bus: number, device: number, fn: number): A | undefined {
    return this.functions.get(bus << 8 | device << 3 | fn) ?? this.rest
  }

  add(range: typeof PciFunctionRange.Type, owner: A): void {
    this.functions.set(functionKey(range), owner)
  }

  remove(range: typeof PciFunctionRange.Type): void {
    this.functions.delete(functionKey(range))
  }

  setRest(owner: A | undefined): void {
    this.rest = owner
  }
}

const functionKey = (range: typeof PciFunctionRange.Type): number => range.bus << 8 | range.device << 3 | range.function
