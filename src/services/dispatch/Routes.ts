/**
 * Which client owns which range of which space. Changes are checked wholly before anything is changed.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import { MmioMap, PciMap, PortMap } from "../../domain/RangeMaps.ts"
import type { IoDispatcherErrorReason } from "../IoDispatcher.ts"
import type { Client } from "./Client.ts"
import type { OwnedRange } from "./PageUse.ts"

interface Route {
  readonly range: IoRange.IoRange
  readonly owner: Client
}

/** Where something hangs: ports or guest addresses. */
export type Place = Extract<IoRange.IoRange, { readonly start: number }>

const NEAREST = 2

// Ranges come from programs, not all of them type-checked; a table filled from a bad one would be hard to repair.
const checkRange = Schema.decodeUnknownResult(IoRange.IoRange)

const sameRange = (a: IoRange.IoRange, b: IoRange.IoRange): boolean => IoRange.format(a) === IoRange.format(b)

const isWithin = (place: Place, range: IoRange.IoRange): boolean =>
  range._tag === place._tag && range.start <= place.start && place.end <= range.end

export class Routes {
  private routes: ReadonlyArray<Route> = []
  private readonly ports = new PortMap<Client>()
  private readonly mmio = new MmioMap<Client>()
  private readonly pci = new PciMap<Client>()

  find(request: IoRequest): Client | undefined {
    switch (request._tag) {
      case "PortRead":
      case "PortWrite":
        return this.ports.find(request.port, request.size)
      case "MmioRead":
      case "MmioWrite":
        return this.mmio.find(request.address, request.size)
      case "PciRead":
      case "PciWrite":
        return this.pci.find(request.bus, request.device, request.function)
    }
  }

  addAll(owner: Client, ranges: ReadonlyArray<IoRange.IoRange>): IoDispatcherErrorReason | undefined {
    const wanted: Array<Route> = []
    for (const range of ranges) {
      const checked = checkRange(range)
      // Guard: cve-2017-15591
      if (Result.isFailure(checked)) {
        return { _tag: "BadRange", client: owner.name, problem: checked.failure.message }
      }
      const taken = [...this.routes, ...wanted].find((route) => IoRange.overlaps(route.range, range))
      if (taken !== undefined) {
        return { _tag: "Overlap", client: owner.name, range, owner: taken.owner.name, owned: taken.range }
      }
      // The copy that was checked: the caller's own object can change once it is in the tables.
      wanted.push({ range: checked.success, owner })
    }
    for (const route of wanted) this.insert(route)
    return undefined
  }

  remove(owner: Client, range: IoRange.IoRange): IoDispatcherErrorReason | undefined {
    const route = this.own(owner, range)
    // Guard: cve-2021-36145
    if (route === undefined) return { _tag: "NoSuchRange", client: owner.name, range }
    this.delete(route)
    return undefined
  }

  move(owner: Client, from: IoRange.IoRange, to: IoRange.IoRange): IoDispatcherErrorReason | undefined {
    const route = this.own(owner, from)
    if (route === undefined) return { _tag: "NoSuchRange", client: owner.name, range: from }
    this.delete(route)
    const refusal = this.addAll(owner, [to])
    if (refusal !== undefined) this.insert(route)
    return refusal
  }

  // Guard: cve-2021-36145
  removeOwner(owner: Client): void {
    for (const route of this.routes.filter((each) => each.owner === owner)) this.delete(route)
  }

  /** Every range, by space and address: ports, MMIO, PCI functions, and the rest of PCI. */
  get sorted(): Array<OwnedRange> {
    return this.routes
      .map(({ owner, range }) => ({ client: owner.name, range }))
      .toSorted((a, b) =>
        SPACES.indexOf(a.range._tag) - SPACES.indexOf(b.range._tag) || placeOf(a.range) - placeOf(b.range)
      )
  }

  /** The ranges of the request's space that begin or end closest to it, for messages. */
  nearest(request: IoRequest): Array<OwnedRange> {
    const address = "port" in request ? request.port : "address" in request ? request.address : undefined
    if (address === undefined) return []
    const space = "port" in request ? "Port" : "Mmio"
    return this.routes
      .flatMap(({ owner, range }) =>
        range._tag === space
          ? [{ client: owner.name, range, distance: Math.min(gap(range.start, address), gap(range.end, address)) }]
          : []
      )
      .toSorted((a, b) => a.distance - b.distance)
      .slice(0, NEAREST)
      .map(({ client, range }) => ({ client, range }))
  }

  /** Whether a client owns every address of a place, in one range. */
  holds(owner: Client, place: Place): boolean {
    return this.routes.some((route) => route.owner === owner && isWithin(place, route.range))
  }

  /** Why a client cannot use a place: it is another's, or nobody's. */
  refusePlace(owner: Client, place: Place): IoDispatcherErrorReason | undefined {
    const checked = checkRange(place)
    if (Result.isFailure(checked)) return { _tag: "BadRange", client: owner.name, problem: checked.failure.message }
    if (this.holds(owner, place)) return undefined
    const other = this.routes.find((route) => route.owner !== owner && IoRange.overlaps(route.range, place))
    return other === undefined
      ? { _tag: "NotOwned", client: owner.name, range: place }
      : { _tag: "Overlap", client: owner.name, range: place, owner: other.owner.name, owned: other.range }
  }

  private own(owner: Client, range: IoRange.IoRange): Route | undefined {
    return this.routes.find((route) => route.owner === owner && sameRange(route.range, range))
  }

  private insert(route: Route): void {
    this.routes = [...this.routes, route]
    const { owner, range } = route
    switch (range._tag) {
      case "Port":
        return this.ports.add(range, owner)
      case "Mmio":
        return this.mmio.add(range, owner)
      case "PciFunction":
        return this.pci.add(range, owner)
      case "PciAny":
        return this.pci.setRest(owner)
    }
  }

  private delete(route: Route): void {
    this.routes = this.routes.filter((other) => other !== route)
    const { range } = route
    switch (range._tag) {
      case "Port":
        return this.ports.remove(range)
      case "Mmio":
        return this.mmio.remove(range)
      case "PciFunction":
        return this.pci.remove(range)
      case "PciAny":
        return this.pci.setRest(undefined)
    }
  }
}

const SPACES: ReadonlyArray<IoRange.IoRange["_tag"]> = ["Port", "Mmio", "PciFunction", "PciAny"]

/** Where a range begins in its space. */
const placeOf = (range: IoRange.IoRange): number => {
  switch (range._tag) {
    case "Port":
    case "Mmio":
      return range.start
    case "PciFunction":
      return range.bus << 8 | range.device << 3 | range.function
    case "PciAny":
      return 0
  }
}

const gap = (edge: number, address: number): number => Math.abs(edge - address)
