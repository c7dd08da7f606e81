/**
 * Pieces of a VM's memory map: which guest pages are backed by which Service VM pages, with which rights.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { MemoryAccess, type MemoryRegionOp, MemoryRegionOpCode, MemoryType } from "./abi/MemoryRegionBatch.ts"
import { GuestAddress, hex, isPageAligned, ServiceAddress } from "./Address.ts"
import { ADDRESS_SPACE_END } from "./Limits.ts"

/**
 * What the guest may do with a page. A write to a page without `write` becomes an MMIO write request.
 *
 * @category schemas
 * @since 0.1.0
 */
export const AccessRights = Schema.Struct({
  read: Schema.Boolean,
  write: Schema.Boolean,
  execute: Schema.Boolean
})

/**
 * @category models
 * @since 0.1.0
 */
export type AccessRights = typeof AccessRights.Type

/**
 * @category constructors
 * @since 0.1.0
 */
export const readWriteExecute: AccessRights = { read: true, write: true, execute: true }

/**
 * @category constructors
 * @since 0.1.0
 */
export const readExecute: AccessRights = { read: true, write: false, execute: true }

/**
 * How the guest's accesses are cached (`ACRN_MEM_TYPE_*` in `<linux/acrn.h>`).
 *
 * @category schemas
 * @since 0.1.0
 */
export const CacheType = Schema.Literals(["WriteBack", "WriteThrough", "Uncached", "WriteCombining", "WriteProtected"])

/**
 * @category models
 * @since 0.1.0
 */
export type CacheType = typeof CacheType.Type

const PageAlignedBytes = Schema.Int.check(
  Schema.isBetween({ minimum: 1, maximum: ADDRESS_SPACE_END }),
  Schema.makeFilter((bytes) => isPageAligned(bytes) || `${hex(bytes)} is not a multiple of the page size 0x1000`)
)

const pageAligned = <A extends number>() =>
  Schema.makeFilter((address: A) => isPageAligned(address) || `${hex(address)} is not page-aligned`)

const within = Schema.makeFilter((region: { readonly guestAddress: number; readonly bytes: number }) =>
  region.guestAddress + region.bytes <= ADDRESS_SPACE_END ||
  `${hex(region.guestAddress)} + ${hex(region.bytes)} bytes ends above 2^52`
)

/**
 * Guest pages `[guestAddress, guestAddress + bytes)` backed by the Service VM pages from `serviceAddress` on. All
 * three are page-aligned.
 *
 * @category schemas
 * @since 0.1.0
 */
export const MappedRegion = Schema.Struct({
  guestAddress: GuestAddress.check(pageAligned()),
  serviceAddress: ServiceAddress.check(pageAligned()),
  bytes: PageAlignedBytes,
  rights: AccessRights,
  cacheType: CacheType
}).check(within)

/**
 * @category models
 * @since 0.1.0
 */
export type MappedRegion = typeof MappedRegion.Type

/**
 * Guest pages `[guestAddress, guestAddress + bytes)`, both page-aligned, with nothing behind them after the operation.
 *
 * @category schemas
 * @since 0.1.0
 */
export const UnmappedRegion = Schema.Struct({
  guestAddress: GuestAddress.check(pageAligned()),
  bytes: PageAlignedBytes
}).check(within)

/**
 * @category models
 * @since 0.1.0
 */
export type UnmappedRegion = typeof UnmappedRegion.Type

const accessBits = (rights: AccessRights): number =>
  (rights.read ? MemoryAccess.Read : 0) | (rights.write ? MemoryAccess.Write : 0) |
  (rights.execute ? MemoryAccess.Execute : 0)

/**
 * The ABI's operation that maps a region.
 *
 * @category codecs
 * @since 0.1.0
 */
export const toMapOp = (region: MappedRegion): MemoryRegionOp => ({
  type: MemoryRegionOpCode.Add,
  attr: accessBits(region.rights) | MemoryType[region.cacheType],
  userVmPa: BigInt(region.guestAddress),
  serviceVmPa: BigInt(region.serviceAddress),
  size: BigInt(region.bytes)
})

/**
 * The ABI's operation that unmaps a region.
 *
 * @category codecs
 * @since 0.1.0
 */
export const toUnmapOp = (region: UnmappedRegion): MemoryRegionOp => ({
  type: MemoryRegionOpCode.Delete,
  attr: 0,
  userVmPa: BigInt(region.guestAddress),
  serviceVmPa: 0n,
  size: BigInt(region.bytes)
})

/**
 * A region as messages show it: `0x1000-0x1fff`, ends inclusive.
 *
 * @category formatting
 * @since 0.1.0
 */
export const formatSpan = (start: number, bytes: number): string => `${hex(start)}-${hex(start + bytes - 1)}`
