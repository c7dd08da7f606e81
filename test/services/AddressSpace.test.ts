import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Result, Schema, Scope } from "effect"
import {
  AddressSpace,
  localBacking,
  makeServiceMemory,
  type RawBacking,
  rawBacking,
  sharedBacking
} from "../../src/services/AddressSpace.ts"
import { ServiceMemoryError } from "../../src/services/ServiceMemory.ts"

const PAGE = 4096
const purpose = { _tag: "HypercallStructures" } as const

const make = (limit = 64 * PAGE) => {
  const space = new AddressSpace()
  return makeServiceMemory(space, (bytes) =>
    bytes > limit
      ? Result.fail(new ServiceMemoryError({ reason: { _tag: "NoMemory", bytes, available: limit } }))
      : Result.succeed(sharedBacking(bytes)))
}

const Pages = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 }))).check(
  Schema.isBetweenLength(1, 8)
)

describe("Service VM memory", () => {
  it.effect.prop("regions are zero-filled, page-aligned, disjoint, and keep what is written to each", [Pages], (
    [sizes]
  ) =>
    Effect.gen(function*() {
      const memory = make()
      const regions = yield* Effect.forEach(sizes, (pages) => memory.allocate({ bytes: pages * PAGE, purpose }))
      for (const [i, { address, bytes }] of regions.entries()) {
        assert.strictEqual(address % PAGE, 0)
        assert.isAbove(address, 0, "address 0 is what forgotten pointers point to")
        assert.strictEqual(bytes, sizes[i]! * PAGE)
        const content = new Uint8Array(bytes)
        Result.getOrThrow(memory.read(address, content))
        assert.isTrue(content.every((byte) => byte === 0))
        Result.getOrThrow(memory.write(address, content.fill(i + 1)))
      }
      for (const [i, { address, bytes }] of regions.entries()) {
        const content = new Uint8Array(bytes)
        Result.getOrThrow(memory.read(address, content))
        assert.isTrue(content.every((byte) => byte === i + 1))
      }
    }), { arbitrary: { runs: 30 } })

  it.effect.prop("an access is wholly inside one region or is refused, on both sides of each edge", [
    Schema.Int.check(Schema.isBetween({ minimum: -20, maximum: 20 })),
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 16 })),
    Schema.Boolean
  ], ([offset, bytes, atEnd]) =>
    Effect.gen(function*() {
      const memory = make()
      const { address } = yield* memory.allocate({ bytes: PAGE, purpose })
      const at = (atEnd ? address + PAGE : address) + offset
      const isInside = at >= address && at + bytes <= address + PAGE
      const read = memory.read(at, new Uint8Array(bytes))
      const written = memory.write(at, new Uint8Array(bytes).fill(7))
      assert.strictEqual(Result.isSuccess(read), isInside)
      assert.strictEqual(Result.isSuccess(written), isInside)
      if (!isInside) {
        assert.deepStrictEqual(Result.getOrThrow(Result.flip(written)).reason, {
          _tag: "OutOfRange",
          address: at,
          bytes
        })
      }
    }))

  it.effect("a region is gone with its scope, and the newest addresses are given again", () =>
    Effect.gen(function*() {
      const memory = make()
      const kept = yield* memory.allocate({ bytes: PAGE, purpose })
      const scope = yield* Scope.make()
      const first = yield* Scope.provide(memory.allocate({ bytes: PAGE, purpose }), scope)
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(Result.isFailure(memory.read(first.address, new Uint8Array(1))))
      assert.isTrue(Result.isFailure(memory.page(first.address)))
      assert.isTrue(Result.isSuccess(memory.read(kept.address, new Uint8Array(1))))
      const second = yield* memory.allocate({ bytes: 2 * PAGE, purpose })
      assert.strictEqual(second.address, first.address)
      const content = new Uint8Array(2 * PAGE)
      Result.getOrThrow(memory.read(second.address, content))
      assert.isTrue(content.every((byte) => byte === 0), "nothing of the old region shows")
    }))

  it.effect("sizes that are no positive multiple of a page, and more than there is, are typed errors", () =>
    Effect.gen(function*() {
      const memory = make()
      for (const bytes of [0, -PAGE, 1, PAGE + 1, NaN, Infinity, 2 ** 60, 0.5]) {
        const error = yield* Effect.flip(memory.allocate({ bytes, purpose }))
        assert.strictEqual(error.reason._tag, "BadRequest")
      }
      const error = yield* Effect.flip(memory.allocate({ bytes: 65 * PAGE, purpose }))
      assert.deepStrictEqual(error.reason, { _tag: "NoMemory", bytes: 65 * PAGE, available: 64 * PAGE })
    }))

  it.effect("addresses that are none are refused, never rounded", () =>
    Effect.gen(function*() {
      const memory = make()
      const { address } = yield* memory.allocate({ bytes: PAGE, purpose })
      for (const bad of [NaN, Infinity, -1, 2 ** 53, address + 0.5]) {
        assert.isTrue(Result.isFailure(memory.read(bad, new Uint8Array(4))), `read at ${bad}`)
        assert.isTrue(Result.isFailure(memory.write(bad, new Uint8Array(4))), `write at ${bad}`)
        assert.isTrue(Result.isFailure(memory.page(bad)), `page at ${bad}`)
      }
    }))

  it.effect("a page is begun at its begin, and its words are the region's bytes", () =>
    Effect.gen(function*() {
      const memory = make()
      const { address } = yield* memory.allocate({ bytes: 2 * PAGE, purpose })
      assert.deepStrictEqual(
        Result.getOrThrow(Result.flip(memory.page(address + 4))).reason,
        { _tag: "NotPage", address: address + 4 }
      )
      const page = Result.getOrThrow(memory.page(address + PAGE))
      page.store32(8, 0x8765_4321)
      assert.strictEqual(page.load32(8), 0x8765_4321 | 0)
      const bytes = new Uint8Array(4)
      Result.getOrThrow(memory.read(address + PAGE + 8, bytes))
      assert.deepStrictEqual(bytes, Uint8Array.of(0x21, 0x43, 0x65, 0x87))
    }))

  it.effect("a request's words are copied to their own places, and the state is not among them", () =>
    Effect.gen(function*() {
      const memory = make()
      const { address } = yield* memory.allocate({ bytes: PAGE, purpose })
      const page = Result.getOrThrow(memory.page(address))
      for (let word = 0; word < 64; word++) page.store32(256 + word * 4, word + 1)
      const words = new Int32Array(64)
      page.fetchRequest(256, words)
      const isFetched = (word: number) => word < 2 || word >= 16 && word <= 26
      assert.deepStrictEqual(words, Int32Array.from({ length: 64 }, (_, word) => isFetched(word) ? word + 1 : 0))
      page.storeRequest(512, Int32Array.from({ length: 64 }, (_, word) => 100 + word))
      const stored = Array.from({ length: 64 }, (_, word) => page.load32(512 + word * 4))
      assert.deepStrictEqual(stored, Array.from({ length: 64 }, (_, word) => isFetched(word) ? 100 + word : 0))
    }))

  it("the address space tells whether a stretch is memory, across regions side by side", () => {
    const space = new AddressSpace()
    const first = space.insert(sharedBacking(PAGE))
    space.insert(sharedBacking(2 * PAGE))
    const third = space.insert(sharedBacking(PAGE))
    assert.isTrue(space.holds(first, 4 * PAGE))
    assert.isFalse(space.holds(first, 4 * PAGE + 1))
    assert.isFalse(space.holds(first - 1, 2))
    assert.isUndefined(space.find(first, PAGE + 1), "but no region holds what is of two")
    space.remove(first + PAGE)
    assert.isFalse(space.holds(first, 4 * PAGE))
    assert.isTrue(space.holds(third, PAGE))
  })

  it("memory of one thread and of several behave the same", () => {
    const slot = Int32Array.from({ length: 64 }, (_, word) => word * 0x0101_0101)
    const seen = [localBacking, sharedBacking].map((back) => {
      const backing = back(2 * PAGE)
      const page = backing.page(PAGE)
      page.store32(0, -1)
      page.store32(136, 0x8000_0001)
      page.storeRequest(256, slot)
      const fetched = new Int32Array(64)
      page.fetchRequest(256, fetched)
      const bytes = new Uint8Array(PAGE)
      backing.read(PAGE, bytes)
      return { bytes, fetched, loaded: [page.load32(0), page.load32(136), page.load32(256 + 64)], size: backing.bytes }
    })
    assert.deepStrictEqual(seen[0], seen[1])
    assert.deepStrictEqual(seen[0]!.loaded, [-1, 0x8000_0001 | 0, 16 * 0x0101_0101])
  })

  it("memory that exists already is the region's, byte for byte and word for word", () => {
    // In the middle of a buffer that no thread shares, as a mapping of another process may be.
    const mapping = new ArrayBuffer(4 * PAGE)
    const space = new AddressSpace<RawBacking>()
    const memory = makeServiceMemory(space, (bytes) => Result.succeed(sharedBacking(bytes)))
    Result.getOrThrow(space.insertAt(0, rawBacking(new Uint8Array(mapping, PAGE, 2 * PAGE))))
    const theirs = new DataView(mapping)
    theirs.setUint32(PAGE + 8, 0x1234_5678, true)
    const page = Result.getOrThrow(memory.page(0))
    assert.strictEqual(page.load32(8), 0x1234_5678)
    page.store32(12, -2)
    assert.strictEqual(theirs.getInt32(PAGE + 12, true), -2)
    Result.getOrThrow(memory.write(2 * PAGE - 1, Uint8Array.of(9)))
    assert.strictEqual(theirs.getUint8(3 * PAGE - 1), 9)
    assert.isTrue(Result.isFailure(memory.write(2 * PAGE, Uint8Array.of(9))))
    assert.throws(() => rawBacking(new Uint8Array(mapping, 2, PAGE)), RangeError)
    assert.throws(() => rawBacking(new Uint8Array(mapping, 0, PAGE + 4)), RangeError)
  })

  it("a region stands where it is put, unless something is there or no page begins there", () => {
    const space = new AddressSpace()
    const at = (page: number, pages: number) => space.insertAt(page * PAGE, sharedBacking(pages * PAGE))
    for (const page of [8, 2, 5, 0]) assert.strictEqual(Result.getOrThrow(at(page, 2)), page * PAGE)
    for (const [page, pages] of [[8, 1], [9, 1], [1, 1], [1, 2], [4, 2], [4, 9], [0, 20]] as const) {
      const refused = Result.getOrThrow(Result.flip(at(page, pages)))
      assert.include(refused.message, "meet the region at 0x")
    }
    assert.isTrue(Result.isSuccess(at(4, 1)), "right up to the next")
    for (const page of [-1, 0.5, NaN, 2 ** 40, 2 ** 40 - 1]) assert.isTrue(Result.isFailure(at(page, 2)), `at ${page}`)
    const found = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((page) => space.find(page * PAGE, PAGE)?.start)
    assert.deepStrictEqual(
      found.map((start) => start === undefined ? -1 : start / PAGE),
      [0, 0, 2, 2, 4, 5, 5, -1, 8, 8, -1]
    )
    assert.strictEqual(space.insert(sharedBacking(PAGE)), 10 * PAGE, "what has no address of its own comes after all")
  })
})
