/**
 * Service VM memory for writers of hypervisor layers: an address space of separate regions, each backed by whatever the
 * layer has (a shared buffer, one VM's wasm memory, a mapping shared with a kernel).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { hex, isPageAligned, ServiceAddress } from "../domain/Address.ts"
import { ADDRESS_SPACE_END, PAGE_BYTES } from "../domain/Limits.ts"
import { type MemoryPurpose, ServiceMemory, ServiceMemoryError, type ServicePage } from "./ServiceMemory.ts"

/**
 * The memory behind one region. Offsets are in bytes from its begin and already checked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Backing {
  readonly bytes: number
  readonly page: (offset: number) => ServicePage
  readonly read: (offset: number, into: Uint8Array) => void
  readonly write: (offset: number, from: Uint8Array) => void
}

/**
 * Memory that a layer reaches by its bytes. `raw` is for the layer that made it: it must not leave it.
 *
 * @category models
 * @since 0.1.0
 */
export interface RawBacking extends Backing {
  readonly raw: Uint8Array
}

/**
 * Memory that exists already, such as a mapping of another kernel's pages; an `ArrayBuffer` will do as well as a
 * `SharedArrayBuffer`, and its pages are accessed atomically all the same: somebody else is there. `raw` is whole pages,
 * and begins in its buffer at a multiple of 4: a `RangeError` says that it does not.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rawBacking = (raw: Uint8Array): RawBacking => backingOf(raw, false)

const backingOf = (raw: Uint8Array, isLocal: boolean): RawBacking => {
  if (!isPageAligned(raw.length)) {
    throw new RangeError(`a backing is whole pages of ${PAGE_BYTES} bytes, not ${raw.length}`)
  }
  const words = new Int32Array(raw.buffer, raw.byteOffset, raw.length / 4)
  return {
    bytes: raw.length,
    raw,
    read: (offset, into) => into.set(raw.subarray(offset, offset + into.length)),
    write: (offset, from) => raw.set(from, offset),
    page: (offset) => sharedPage(words, offset, isLocal)
  }
}

/**
 * Zero-filled memory of `bytes` bytes, a multiple of 4096, for a hypervisor that runs in the very thread that serves its
 * requests. No other thread can see it, so its pages need no atomic accesses, which would be a fifth of a request's trip.
 *
 * @category constructors
 * @since 0.1.0
 */
export const localBacking = (bytes: number): RawBacking => backingOf(new Uint8Array(bytes), true)

/**
 * Zero-filled memory of `bytes` bytes, a multiple of 4096, to be shared between threads. Where threads cannot share
 * memory (a web page that is not cross-origin isolated) it is this thread's alone, and everything else is the same.
 *
 * @category constructors
 * @since 0.1.0
 */
export const sharedBacking = (bytes: number): RawBacking =>
  typeof SharedArrayBuffer === "undefined"
    ? localBacking(bytes)
    : backingOf(new Uint8Array(new SharedArrayBuffer(bytes)), false)

const FIRST_REQUEST_WORD = 16
const LAST_REQUEST_WORD = 26

/**
 * A page that begins `base` bytes into `words`. `isLocal` tells that no other thread or process can see them; by default
 * it is what their buffer says, which knows of no other process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const sharedPage = (
  words: Int32Array,
  base: number,
  isLocal = words.buffer instanceof ArrayBuffer
): ServicePage => {
  const firstWord = base / 4
  // Memory that nobody else can see is always in order.
  return {
    load32: isLocal
      ? (offset) => words[firstWord + offset / 4]!
      : (offset) => Atomics.load(words, firstWord + offset / 4),
    store32: isLocal
      ? (offset, value) => {
        words[firstWord + offset / 4] = value
      }
      : (offset, value) => {
        Atomics.store(words, firstWord + offset / 4, value)
      },
    // Guard: xsa-155
    fetchRequest: (offset, into) => {
      const slot = firstWord + offset / 4
      into[0] = words[slot]!
      into[1] = words[slot + 1]!
      for (let word = FIRST_REQUEST_WORD; word <= LAST_REQUEST_WORD; word++) into[word] = words[slot + word]!
    },
    storeRequest: (offset, from) => {
      const slot = firstWord + offset / 4
      words[slot] = from[0]!
      words[slot + 1] = from[1]!
      for (let word = FIRST_REQUEST_WORD; word <= LAST_REQUEST_WORD; word++) words[slot + word] = from[word]!
    }
  }
}

interface Region<B> {
  readonly start: number
  readonly end: number
  readonly backing: B
}

// Address 0 stays free: it is what forgotten pointers point to.
const FIRST_ADDRESS = 0x10_0000

/**
 * Regions by address, all of one kind of backing. Freed address space is given again once it is the newest, so programs
 * that create and destroy in turn stay at the same addresses.
 *
 * @category models
 * @since 0.1.0
 */
export class AddressSpace<B extends Backing = Backing> {
  private regions: Array<Region<B>> = []

  /** Puts a backing at the next free page-aligned address. */
  insert(backing: B): ServiceAddress {
    const start = this.regions.at(-1)?.end ?? FIRST_ADDRESS
    this.regions.push({ start, end: start + backing.bytes, backing })
    return ServiceAddress.make(start)
  }

  /**
   * Puts a backing at an address of its own: memory that somebody else laid out. Refused when the address is no page's,
   * when the region would end beyond the address space, or when another region is there.
   */
  insertAt(start: number, backing: B): Result.Result<ServiceAddress, ServiceMemoryError> {
    const end = start + backing.bytes
    const refuse = (problem: string) =>
      Result.fail(new ServiceMemoryError({ reason: { _tag: "BadRequest", bytes: backing.bytes, problem } }))
    if (!(start >= 0 && isPageAligned(start) && end <= ADDRESS_SPACE_END)) {
      return refuse(`${start} is no address of a page, or the region ends beyond 2^52`)
    }
    const next = this.regions.findIndex((region) => region.end > start)
    const follower = this.regions[next]
    if (follower !== undefined && follower.start < end) {
      return refuse(`the addresses ${hex(start)} to ${hex(end)} meet the region at ${hex(follower.start)}`)
    }
    this.regions.splice(next < 0 ? this.regions.length : next, 0, { start, end, backing })
    return Result.succeed(ServiceAddress.make(start))
  }

  remove(address: number): void {
    this.regions = this.regions.filter((region) => region.start !== address)
  }

  /** The region that holds all of `[address, address + bytes)`. */
  find(address: number, bytes: number): Region<B> | undefined {
    let low = 0
    let high = this.regions.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const region = this.regions[middle]!
      if (address < region.start) high = middle - 1
      else if (address >= region.end) low = middle + 1
      else return Number.isInteger(address) && address + bytes <= region.end ? region : undefined
    }
    return undefined
  }

  /** Whether all of `[address, address + bytes)` is memory, of one region or of several side by side. */
  holds(address: number, bytes: number): boolean {
    let at = address
    while (at < address + bytes) {
      const region = this.find(at, 1)
      if (region === undefined) return false
      at = region.end
    }
    return true
  }
}

const outOfRange = (address: number, bytes: number) =>
  Result.fail(new ServiceMemoryError({ reason: { _tag: "OutOfRange", address, bytes } }))

/**
 * The service over an address space. `back` gives the memory for a request that was found well-formed, and may refuse.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeServiceMemory = <B extends Backing>(
  space: AddressSpace<B>,
  back: (bytes: number, purpose: MemoryPurpose) => Result.Result<B, ServiceMemoryError>
): ServiceMemory["Service"] =>
  ServiceMemory.of({
    allocate: ({ bytes, purpose }) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (!Number.isSafeInteger(bytes) || bytes <= 0 || !isPageAligned(bytes)) {
            return Effect.fail(
              new ServiceMemoryError({
                reason: { _tag: "BadRequest", bytes, problem: "the size must be a positive multiple of 4096" }
              })
            )
          }
          // The host may have less than the layer promises; that is no defect of the program.
          const backed = Result.flatMap(
            Result.try({
              try: () => back(bytes, purpose),
              catch: (cause) =>
                new ServiceMemoryError({
                  reason: { _tag: "BadRequest", bytes, problem: `the host has not that much memory (${String(cause)})` }
                })
            }),
            (result) => result
          )
          return Effect.fromResult(Result.map(backed, (backing) => ({ address: space.insert(backing), bytes })))
        }),
        (region) => Effect.sync(() => space.remove(region.address))
      ),
    page: (address) => {
      if (!isPageAligned(address)) {
        return Result.fail(new ServiceMemoryError({ reason: { _tag: "NotPage", address } }))
      }
      const region = space.find(address, PAGE_BYTES)
      return region === undefined
        ? outOfRange(address, PAGE_BYTES)
        : Result.succeed(region.backing.page(address - region.start))
    },
    read: (address, into) => {
      const region = space.find(address, into.length)
      if (region === undefined) return outOfRange(address, into.length)
      return Result.succeed(region.backing.read(address - region.start, into))
    },
    write: (address, from) => {
      const region = space.find(address, from.length)
      if (region === undefined) return outOfRange(address, from.length)
      return Result.succeed(region.backing.write(address - region.start, from))
    }
  })
