import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { MEMORY_ACCESS_MASK, MEMORY_TYPE_MASK, MemoryRegionOp } from "../../src/domain/abi/MemoryRegionBatch.ts"
import { GuestAddress, ServiceAddress } from "../../src/domain/Address.ts"
import * as MemoryRegion from "../../src/domain/MemoryRegion.ts"

const END = 2 ** 52
const PAGE = 4096

const near = Schema.Union([
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 64 * PAGE })),
  Schema.Literals([0, 1, PAGE - 1, PAGE, END - PAGE, END - 1, END, END + PAGE, -PAGE, 2 ** 53]),
  Schema.Natural
])

describe("MemoryRegion", () => {
  it.prop("a mapped region is page-aligned, not empty, and ends below 2^52", [
    Schema.Struct({ guestAddress: near, serviceAddress: near, bytes: near, page: Schema.Boolean })
  ], ([{ bytes, guestAddress, page, serviceAddress }]) => {
    const round = (value: number) => page ? value - value % PAGE : value
    const region = {
      guestAddress: round(guestAddress),
      serviceAddress: round(serviceAddress),
      bytes: round(bytes),
      rights: MemoryRegion.readWriteExecute,
      cacheType: "WriteBack" as const
    }
    const isAddress = (value: number) => value >= 0 && value < END && value % PAGE === 0
    const isLegal = isAddress(region.guestAddress) && isAddress(region.serviceAddress) &&
      region.bytes > 0 && region.bytes % PAGE === 0 && region.guestAddress + region.bytes <= END
    assert.strictEqual(Schema.is(MemoryRegion.MappedRegion)(region), isLegal)
    const { guestAddress: at, bytes: length } = region
    assert.strictEqual(
      Schema.is(MemoryRegion.UnmappedRegion)({ guestAddress: at, bytes: length }),
      isAddress(at) && length > 0 && length % PAGE === 0 && at + length <= END
    )
  }, { arbitrary: { runs: 1000 } })

  it.prop("an operation carries exactly the rights and the cache type", [
    MemoryRegion.AccessRights,
    MemoryRegion.CacheType
  ], ([rights, cacheType]) => {
    const operation = MemoryRegion.toMapOp({
      guestAddress: GuestAddress.make(0x1000),
      serviceAddress: ServiceAddress.make(0x10_0000),
      bytes: PAGE,
      rights,
      cacheType
    })
    assert.strictEqual(operation.type, 0)
    assert.strictEqual(
      operation.attr & MEMORY_ACCESS_MASK,
      (rights.read ? 1 : 0) + (rights.write ? 2 : 0) + (rights.execute ? 4 : 0)
    )
    const types = { WriteBack: 0x40, WriteThrough: 0x80, Uncached: 0x100, WriteCombining: 0x200, WriteProtected: 0x400 }
    assert.strictEqual(operation.attr & MEMORY_TYPE_MASK, types[cacheType])
    assert.strictEqual(operation.attr & ~(MEMORY_ACCESS_MASK | MEMORY_TYPE_MASK), 0)
    assert.deepStrictEqual(
      Result.getOrThrow(Result.flatMap(MemoryRegionOp.encode(operation), (bytes) => MemoryRegionOp.decode(bytes))),
      operation
    )
  })

  it("an unmap operation is a deletion without attributes", () => {
    assert.deepStrictEqual(
      MemoryRegion.toUnmapOp({ guestAddress: GuestAddress.make(0x2000), bytes: PAGE }),
      { type: 2, attr: 0, userVmPa: 0x2000n, serviceVmPa: 0n, size: 4096n }
    )
  })

  it("spans are shown with their last byte", () => {
    assert.strictEqual(MemoryRegion.formatSpan(0x1000, PAGE), "0x1000-0x1fff")
  })
})
