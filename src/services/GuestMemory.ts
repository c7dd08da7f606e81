/**
 * A VM's memory by guest physical address, as device models need it for DMA: bounds-checked reads and writes that never
 * touch anything but RAM the VM was given.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { hex } from "../domain/Address.ts"
import { formatSpan, type MappedRegion, type UnmappedRegion } from "../domain/MemoryRegion.ts"
import type { ServiceMemory } from "./ServiceMemory.ts"

/**
 * `OutsideRam`: the bytes `[address, address + bytes)` are not all RAM; `mapped` lists what is, ends inclusive.
 *
 * @category errors
 * @since 0.1.0
 */
export const GuestMemoryErrorReason = Schema.TaggedUnion({
  OutsideRam: { address: Schema.Number, bytes: Schema.Number, mapped: Schema.Array(Schema.String) }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type GuestMemoryErrorReason = typeof GuestMemoryErrorReason.Type

/**
 * An access to guest memory that is not wholly RAM. Nothing was read or written.
 *
 * @category errors
 * @since 0.1.0
 */
export class GuestMemoryError
  extends Schema.TaggedError<GuestMemoryError>()("GuestMemoryError", { reason: GuestMemoryErrorReason })
{
  override get message(): string {
    const { address, bytes, mapped } = this.reason
    return `${bytes} bytes at guest address ${hex(address)} are not all RAM of this VM; its RAM is ` +
      `${mapped.length === 0 ? "empty" : mapped.join(", ")}; check the address that the guest or the image gave`
  }
}

/**
 * RAM of one VM by guest physical address.
 *
 * @category services
 * @since 0.1.0
 */
export class GuestMemory extends Context.Service<GuestMemory, {
  /** A copy of `[address, address + bytes)`. */
  readonly read: (address: number, bytes: number) => Effect.Effect<Uint8Array, GuestMemoryError>
  /** Writes `from` at `address`; code caches over these pages hear of it. */
  readonly write: (address: number, from: Uint8Array) => Effect.Effect<void, GuestMemoryError>
  /** A little-endian u32. */
  readonly read32: (address: number) => Effect.Effect<number, GuestMemoryError>
  /** Writes a little-endian u32. */
  readonly write32: (address: number, value: number) => Effect.Effect<void, GuestMemoryError>
  /** What is mapped, by ascending guest address. */
  readonly regions: Effect.Effect<ReadonlyArray<MappedRegion>>
}>()("upcall/services/GuestMemory") {}

interface Piece {
  readonly serviceAddress: number
  readonly bytes: number
}

/**
 * The table behind the service: disjoint regions by guest address. `VirtualMachine` keeps it in step with the
 * hypervisor's own map.
 *
 * @category models
 * @since 0.1.0
 */
export class GuestMemoryMap {
  private sorted: ReadonlyArray<MappedRegion> = []

  get regions(): ReadonlyArray<MappedRegion> {
    return this.sorted
  }

  overlapping(guestAddress: number, bytes: number): MappedRegion | undefined {
    return this.sorted.find((region) =>
      region.guestAddress < guestAddress + bytes && guestAddress < region.guestAddress + region.bytes
    )
  }

  add(region: MappedRegion): void {
    this.sorted = [...this.sorted, region].toSorted((a, b) => a.guestAddress - b.guestAddress)
  }

  /** Forgets every region: the VM is over. */
  clear(): void {
    this.sorted = []
  }

  /** Takes `[guestAddress, guestAddress + bytes)` out; regions that stick out on a side keep that side. */
  remove({ bytes, guestAddress }: UnmappedRegion): void {
    const end = guestAddress + bytes
    this.sorted = this.sorted.flatMap((region): Array<MappedRegion> => {
      const regionEnd = region.guestAddress + region.bytes
      if (regionEnd <= guestAddress || region.guestAddress >= end) return [region]
      const kept: Array<MappedRegion> = []
      if (region.guestAddress < guestAddress) kept.push({ ...region, bytes: guestAddress - region.guestAddress })
      if (regionEnd > end) {
        const cut = end - region.guestAddress
        kept.push({
          ...region,
          guestAddress: (region.guestAddress + cut) as MappedRegion["guestAddress"],
          serviceAddress: (region.serviceAddress + cut) as MappedRegion["serviceAddress"],
          bytes: regionEnd - end
        })
      }
      return kept
    })
  }

  /** Where `[address, address + bytes)` lies in Service VM memory, piece by piece; `undefined` if any byte is not RAM. */
  translate(address: number, bytes: number): ReadonlyArray<Piece> | undefined {
    if (!Number.isSafeInteger(address) || !Number.isSafeInteger(bytes) || address < 0 || bytes < 0) return undefined
    const pieces: Array<Piece> = []
    let at = address
    const end = address + bytes
    for (const region of this.sorted) {
      const regionEnd = region.guestAddress + region.bytes
      if (regionEnd <= at) continue
      if (at >= end || region.guestAddress > at) break
      const length = Math.min(end, regionEnd) - at
      pieces.push({ serviceAddress: region.serviceAddress + (at - region.guestAddress), bytes: length })
      at += length
    }
    return at === end ? pieces : undefined
  }
}

/**
 * The service over a map.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromMap = (map: GuestMemoryMap, memory: ServiceMemory["Service"]): GuestMemory["Service"] => {
  const outside = (address: number, bytes: number) =>
    new GuestMemoryError({
      reason: {
        _tag: "OutsideRam",
        address,
        bytes,
        mapped: map.regions.map((region) => formatSpan(region.guestAddress, region.bytes))
      }
    })
  const transfer = (
    address: number,
    bytes: Uint8Array,
    move: (serviceAddress: number, piece: Uint8Array) => Result.Result<void, unknown>
  ): Result.Result<Uint8Array, GuestMemoryError> => {
    const pieces = map.translate(address, bytes.length)
    // Guard: qemu-556
    if (pieces === undefined) return Result.fail(outside(address, bytes.length))
    let done = 0
    for (const piece of pieces) {
      const moved = move(piece.serviceAddress, bytes.subarray(done, done + piece.bytes))
      if (Result.isFailure(moved)) return Result.fail(outside(address, bytes.length))
      done += piece.bytes
    }
    return Result.succeed(bytes)
  }
  const read = (address: number, bytes: number) =>
    Effect.suspend(() =>
      Number.isSafeInteger(bytes) && bytes >= 0 && map.translate(address, bytes) !== undefined
        ? Effect.fromResult(transfer(address, new Uint8Array(bytes), memory.read))
        : Effect.fail(outside(address, bytes))
    )
  const write = (address: number, from: Uint8Array) =>
    Effect.suspend(() => Effect.asVoid(Effect.fromResult(transfer(address, from, memory.write))))
  return GuestMemory.of({
    read,
    write,
    read32: (address) =>
      Effect.map(read(address, 4), (bytes) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)),
    write32: (address, value) =>
      Effect.suspend(() => {
        const bytes = new Uint8Array(4)
        new DataView(bytes.buffer).setUint32(0, value, true)
        return write(address, bytes)
      }),
    regions: Effect.sync(() => map.regions)
  })
}
