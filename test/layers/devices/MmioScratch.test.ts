import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schema } from "effect"
import * as MmioScratch from "../../../src/layers/devices/MmioScratch.ts"
import { fakeMachine, twoMachines } from "./FakeMachine.ts"

const BASE = 0xe000_0000

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Store = Schema.Struct({
  offset: int(0, 64 - 8),
  size: Schema.Literals([1, 2, 4, 8]),
  value: Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 0xffff_ffff_ffff_ffffn }))
})

describe("MmioScratch", () => {
  it.effect.prop(
    "loads what was stored, at any size and alignment",
    [Schema.Array(Store)],
    ([stores]) =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        const scratch = yield* guest.provide(MmioScratch.make({ bytes: 64 }))
        const expected = new Uint8Array(64)
        for (const { offset, size, value } of stores) {
          guest.mmioWrite(BASE + offset, value, size)
          for (let i = 0; i < size; i++) expected[offset + i] = Number(BigInt.asUintN(8, value >> BigInt(8 * i)))
          assert.strictEqual(guest.mmioRead(BASE + offset, size), BigInt.asUintN(8 * size, value))
        }
        assert.deepStrictEqual(yield* scratch.contents, expected)
        for (let i = 0; i < 64; i++) assert.strictEqual(guest.mmioRead(BASE + i, 1), BigInt(expected[i]!))
      })
  )

  it.effect("answers up to its last byte, and not beyond", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(MmioScratch.make())
      guest.mmioWrite(BASE + 4088, 1n, 8)
      assert.strictEqual(guest.mmioRead(BASE + 4088, 8), 1n)
      assert.strictEqual(guest.mmioRead(BASE + 4089, 8), 0xffff_ffff_ffff_ffffn)
      assert.strictEqual(guest.mmioRead(BASE + 4096, 1), 0xffn)
    }))

  it.effect("is zero at first and after a reset", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scratch = yield* guest.provide(MmioScratch.make({ base: 0xd000_0000, bytes: 16 }))
      assert.deepStrictEqual(yield* scratch.contents, new Uint8Array(16))
      guest.mmioWrite(0xd000_0000, 1n, 1)
      yield* guest.reset
      assert.deepStrictEqual(yield* scratch.contents, new Uint8Array(16))
    }))

  it.effect("gives copies of its contents", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scratch = yield* guest.provide(MmioScratch.make())
      const copy = yield* scratch.contents
      copy.fill(1)
      assert.strictEqual(guest.mmioRead(BASE, 1), 0n)
    }))

  it.effect("is not made without bytes", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      for (const bytes of [0, -1, 0.5]) {
        const exit = yield* Effect.exit(guest.provide(MmioScratch.make({ bytes })))
        assert.isTrue(Exit.isFailure(exit))
      }
      assert.deepStrictEqual(yield* guest.machine.io.counts, [])
    }))

  it.effect("is another device for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const [one, two] = yield* twoMachines
      const layer = MmioScratch.layer()
      yield* one.provide(Layer.build(layer))
      yield* two.provide(Layer.build(layer))
      one.mmioWrite(BASE, 5n, 4)
      assert.deepStrictEqual([one.mmioRead(BASE, 4), two.mmioRead(BASE, 4)], [5n, 0n])
    }))
})
