import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Result, Schema } from "effect"
import * as Field from "../../../src/domain/abi/Field.ts"
import * as Layout from "../../../src/domain/abi/Layout.ts"
import { leavesOf, misfitsFor, repeat, replaced } from "../../../src/testing/laws/layoutValues.ts"
import { structures } from "./structures.ts"

const Byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))

/** Bytes of any length, made by repeating a short pattern: all-zero and all-ones come up often. */
const pattern = Arbitrary.array(Arbitrary.schema(Byte), { minLength: 1, maxLength: 61 })

const reasonOf = <A>(result: Result.Result<A, Layout.LayoutError>) => {
  assert.isTrue(Result.isFailure(result))
  return (result as Result.Failure<A, Layout.LayoutError>).failure.reason
}

describe.each(structures.map((layout) => ({ name: layout.cName, layout })))("$name", ({ layout }) => {
  // Any bytes decode, so decoding random bytes reaches every value the structure can hold.
  it.prop("decode(encode(x)) = x, and the bytes are the same again", [pattern], ([bytes]) => {
    const value = Result.getOrThrow(layout.decode(repeat(bytes, layout.size)))
    const encoded = Result.getOrThrow(layout.encode(value as never))
    assert.strictEqual(encoded.length, layout.size)
    const again = Result.getOrThrow(layout.decode(encoded))
    assert.deepStrictEqual(again, value)
    assert.deepStrictEqual(Result.getOrThrow(layout.encode(again as never)), encoded)
  })

  it("writes reserved fields as zero", () => {
    const value = Result.getOrThrow(layout.decode(new Uint8Array(layout.size).fill(0xff)))
    const encoded = Result.getOrThrow(layout.encode(value as never))
    for (const [name, field] of Object.entries(layout.fields)) {
      if (field.omitted === true) {
        const begin = layout.offsets[name]!
        assert.isTrue(encoded.subarray(begin, begin + field.size).every((byte) => byte === 0), name)
        assert.notProperty(value, name)
      }
    }
  })

  it.prop(
    "refuses bytes that end too early, at any offset",
    [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: layout.size - 1 })), Schema.Natural],
    ([length, far]) => {
      const offset = far % 97
      const bytes = new Uint8Array(offset + length)
      const short = { _tag: "Short", structure: layout.cName, expected: layout.size, actual: length } as const
      assert.deepStrictEqual(reasonOf(layout.decode(bytes, offset)), short)
      const value = Result.getOrThrow(layout.decode(new Uint8Array(layout.size).fill(0xff)))
      assert.deepStrictEqual(reasonOf(layout.encodeInto(value as never, bytes, offset)), short)
      assert.isTrue(bytes.every((byte) => byte === 0))
    }
  )

  it("refuses a value that does not fit, names its path and writes nothing", () => {
    const value = Result.getOrThrow(layout.decode(new Uint8Array(layout.size)))
    for (const { leaf, path } of leavesOf(value)) {
      for (const misfit of misfitsFor(leaf)) {
        const target = new Uint8Array(layout.size).fill(0x5a)
        const bad = replaced(value, path, misfit)
        assert.deepStrictEqual(reasonOf(layout.encodeInto(bad as never, target)), {
          _tag: "FieldOutOfRange",
          structure: layout.cName,
          field: path.join("."),
          value: misfit
        })
        assert.isTrue(target.every((byte) => byte === 0x5a))
      }
    }
  })
})

describe("Layout", () => {
  const Inner = Layout.struct("inner", { a: Field.u16("a"), b: Field.u64("b") })
  const Outer = Layout.struct("outer", {
    first: Field.u16("first"),
    many: Layout.array("many", Inner, 2),
    last: Field.u32("last")
  })

  it("places fields by C's rules, little-endian", () => {
    assert.deepStrictEqual(Outer.offsets, { first: 0, many: 8, last: 40 })
    assert.strictEqual(Outer.size, 48)
    const bytes = Result.getOrThrow(
      Outer.encode({ first: 0x0102, many: [{ a: 3, b: 0x0405n }, { a: 6, b: 7n }], last: 0x08090a0b })
    )
    assert.deepStrictEqual(
      [...bytes.entries()].filter(([, byte]) => byte !== 0),
      [[0, 2], [1, 1], [8, 3], [16, 5], [17, 4], [24, 6], [32, 7], [40, 0x0b], [41, 0x0a], [42, 9], [43, 8]]
    )
  })

  it("integers accept exactly their range", () => {
    const One = Layout.struct("one", { a: Field.u16("a"), b: Field.u32("b"), c: Field.u64("c") })
    const accepts = (a: number, b: number, c: bigint) => Result.isSuccess(One.encode({ a, b, c }))
    assert.isTrue(accepts(0, 0, 0n))
    assert.isTrue(accepts(0xffff, 0xffff_ffff, 0xffff_ffff_ffff_ffffn))
    assert.isFalse(accepts(0x1_0000, 0, 0n))
    assert.isFalse(accepts(0, 0x1_0000_0000, 0n))
    assert.isFalse(accepts(0, 0, 0x1_0000_0000_0000_0000n))
    assert.isFalse(accepts(-1, 0, 0n))
    assert.isFalse(accepts(0, -1, 0n))
    assert.isFalse(accepts(0, 0, -1n))
  })

  it("packs without padding when told", () => {
    const Packed = Layout.struct("packed", { a: Field.u16("a"), b: Field.u64("b") }, { packed: true })
    assert.deepStrictEqual(Packed.offsets, { a: 0, b: 2 })
    assert.strictEqual(Packed.size, 10)
  })

  it("refuses an array of the wrong length", () => {
    for (const many of [[], [{ a: 1, b: 1n }], undefined]) {
      assert.deepStrictEqual(reasonOf(Outer.encode({ first: 0, many: many as never, last: 0 })), {
        _tag: "FieldOutOfRange",
        structure: "outer",
        field: "many",
        value: many
      })
    }
  })

  it("refuses what is no object at all", () => {
    for (const value of [undefined, null, 1, "x"]) {
      assert.strictEqual(reasonOf(Inner.encode(value as never))._tag, "FieldOutOfRange")
    }
  })

  it("refuses offsets that are no place in the bytes", () => {
    for (const offset of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      assert.strictEqual(reasonOf(Inner.decode(new Uint8Array(64), offset))._tag, "Short")
    }
  })

  it("reads and writes inside a bigger array, and inside a view that begins later", () => {
    const memory = new Uint8Array(64).fill(0xee)
    const view = memory.subarray(8, 48)
    Result.getOrThrow(Inner.encodeInto({ a: 1, b: 2n }, view, 16))
    assert.deepStrictEqual(Result.getOrThrow(Inner.decode(view, 16)), { a: 1, b: 2n })
    assert.deepStrictEqual(Result.getOrThrow(Inner.decode(memory, 24)), { a: 1, b: 2n })
    assert.isTrue(memory.subarray(0, 24).every((byte) => byte === 0xee))
    assert.isTrue(memory.subarray(40).every((byte) => byte === 0xee))
  })

  it("shares no memory with what it decoded, shared memory included", () => {
    const Blob = Layout.struct("blob", { data: Field.bytes("data", 4) })
    const memory = new Uint8Array(new SharedArrayBuffer(4)).fill(1)
    const { data } = Result.getOrThrow(Blob.decode(memory))
    memory.fill(2)
    assert.deepStrictEqual(data, new Uint8Array([1, 1, 1, 1]))
  })

  it("says what happened, with the values, and what to do", () => {
    const message = (result: Result.Result<unknown, Layout.LayoutError>) =>
      Result.isFailure(result) ? result.failure.message : ""
    assert.strictEqual(
      message(Inner.decode(new Uint8Array(3))),
      "inner needs 16 bytes but only 3 are there; pass bytes that hold all of it"
    )
    assert.strictEqual(
      message(Inner.encode({ a: 65536, b: 0n })),
      "inner.a cannot hold 65536; pass a value of the field's type and width"
    )
    // An object without a string form must not make the message throw.
    assert.include(message(Inner.encode({ a: Object.create(null) as never, b: 0n })), "a value of type object")
  })
})
