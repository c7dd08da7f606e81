import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result, Schema } from "effect"
import { GuestAddress, ServiceAddress } from "../../src/domain/Address.ts"
import { readWriteExecute } from "../../src/domain/MemoryRegion.ts"
import { AddressSpace, makeServiceMemory, sharedBacking } from "../../src/services/AddressSpace.ts"
import * as GuestMemory from "../../src/services/GuestMemory.ts"

const PAGE = 4096
const PAGES = 12

const region = (guestAddress: number, serviceAddress: number, bytes: number) => ({
  guestAddress: GuestAddress.make(guestAddress),
  serviceAddress: ServiceAddress.make(serviceAddress),
  bytes,
  rights: readWriteExecute,
  cacheType: "WriteBack" as const
})

/** Guest memory over a small service memory; guest pages of one region are service pages from its begin on. */
const make = () => {
  const space = new AddressSpace()
  const memory = makeServiceMemory(space, (bytes) => Result.succeed(sharedBacking(bytes)))
  const map = new GuestMemory.GuestMemoryMap()
  const add = (guestAddress: number, bytes: number) => {
    const serviceAddress = space.insert(sharedBacking(bytes))
    map.add(region(guestAddress, serviceAddress, bytes))
    return serviceAddress
  }
  return { space, memory, map, add, guest: GuestMemory.fromMap(map, memory) }
}

const Index = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: PAGES - 1 }))
const Count = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4 }))
const Step = Schema.TaggedUnion({ Map: { page: Index, pages: Count }, Unmap: { page: Index, pages: Count } })

describe("GuestMemory", () => {
  it.effect("a write is read back, also across regions that follow each other", () =>
    Effect.gen(function*() {
      const { add, guest, map } = make()
      add(PAGE, PAGE)
      add(2 * PAGE, 2 * PAGE)
      const bytes = Uint8Array.from({ length: PAGE + 100 }, (_, i) => i)
      yield* guest.write(2 * PAGE - 50, bytes)
      assert.deepStrictEqual(yield* guest.read(2 * PAGE - 50, bytes.length), bytes)
      assert.deepStrictEqual(map.translate(2 * PAGE - 50, 100)?.map((piece) => piece.bytes), [50, 50])
      yield* guest.write32(2 * PAGE - 2, 0xfedc_ba98)
      assert.strictEqual(yield* guest.read32(2 * PAGE - 2), 0xfedc_ba98)
      assert.deepStrictEqual(yield* guest.read(2 * PAGE - 2, 4), Uint8Array.of(0x98, 0xba, 0xdc, 0xfe))
    }))

  it.effect("what is not all RAM is refused wholly, with the RAM there is", () =>
    Effect.gen(function*() {
      const { add, guest } = make()
      add(0, PAGE)
      add(4 * PAGE, PAGE)
      const error = yield* Effect.flip(guest.write(PAGE - 2, Uint8Array.of(1, 2, 3)))
      assert.deepStrictEqual(error.reason, {
        _tag: "OutsideRam",
        address: PAGE - 2,
        bytes: 3,
        mapped: ["0x0-0xfff", "0x4000-0x4fff"]
      })
      assert.deepStrictEqual(yield* guest.read(PAGE - 2, 2), Uint8Array.of(0, 0), "nothing was written")
    }))

  it.effect("addresses and sizes that are none are refused", () =>
    Effect.gen(function*() {
      const { add, guest } = make()
      add(0, PAGE)
      for (
        const [address, bytes] of [[-1, 1], [0.5, 1], [NaN, 1], [0, -1], [0, 0.5], [0, NaN], [0, Infinity], [
          2 ** 53,
          1
        ], [0, 2 ** 40]]
      ) {
        assert.strictEqual((yield* Effect.flip(guest.read(address!, bytes!))).reason._tag, "OutsideRam")
      }
      assert.strictEqual((yield* Effect.flip(guest.write32(-4, 1))).reason._tag, "OutsideRam")
      assert.strictEqual((yield* Effect.flip(guest.read32(PAGE - 3))).reason._tag, "OutsideRam")
    }))

  it.effect("an empty map says so", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(make().guest.read(0, 1))
      assert.include(error.message, "its RAM is empty")
    }))

  it.effect.prop("the map agrees with a list of pages, whatever is mapped and taken away", [
    Arbitrary.array(Arbitrary.schema(Step), { maxLength: 20 })
  ], ([steps]) =>
    Effect.gen(function*() {
      const { add, map } = make()
      const pages = new Map<number, number>()
      for (const step of steps) {
        const guestAddress = step.page * PAGE
        const bytes = step.pages * PAGE
        const touched = Array.from({ length: step.pages }, (_, i) => step.page + i)
        if (step._tag === "Map") {
          const taken = touched.some((page) => pages.has(page))
          assert.strictEqual(map.overlapping(guestAddress, bytes) !== undefined, taken)
          if (taken) continue
          const serviceAddress = add(guestAddress, bytes)
          touched.forEach((page, i) => pages.set(page, serviceAddress + i * PAGE))
        } else {
          map.remove({ guestAddress: GuestAddress.make(guestAddress), bytes })
          for (const page of touched) pages.delete(page)
        }
        for (let page = 0; page < PAGES + 4; page++) {
          const pieces = map.translate(page * PAGE + 8, 16)
          const service = pages.get(page)
          assert.deepStrictEqual(
            pieces,
            service === undefined ? undefined : [{ serviceAddress: service + 8, bytes: 16 }]
          )
        }
        const starts = map.regions.map((each): number => each.guestAddress)
        assert.deepStrictEqual(starts, starts.toSorted((a, b) => a - b))
        const mapped = map.regions.reduce((sum, each) => sum + each.bytes / PAGE, 0)
        assert.strictEqual(mapped, pages.size)
      }
    }))
})
