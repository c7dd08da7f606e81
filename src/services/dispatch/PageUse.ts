/**
 * What is known of a page of requests besides what it shows: who holds which request, and who would get the next.
 */
import type { IoRange } from "../../domain/IoRange.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"

/** Who holds a slot's request. `ageMs` is not known of a handler that is only starting. */
export interface Holder {
  readonly client: string
  readonly request: IoRequest
  readonly ageMs: number | undefined
}

export interface OwnedRange {
  readonly client: string
  readonly range: IoRange
}

export interface NearMiss {
  readonly request: IoRequest
  readonly nearest: ReadonlyArray<OwnedRange>
}

export interface PageUse {
  readonly holder: (vcpu: number) => Holder | undefined
  /** Sorted by space and address. */
  readonly ranges: () => ReadonlyArray<OwnedRange>
  /** The last accesses that nobody owned, oldest first. */
  readonly nearMisses: () => ReadonlyArray<NearMiss>
}
