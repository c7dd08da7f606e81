import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Result, Schema } from "effect"
import * as Layout from "../../../../src/domain/abi/Layout.ts"
import * as CountedList from "../../../../src/layers/kvm/abi/CountedList.ts"
import { exitReasonName, internalErrorName, systemEventName } from "../../../../src/layers/kvm/abi/ExitReason.ts"
import { i32, i64, u64s, u8 } from "../../../../src/layers/kvm/abi/KvmField.ts"
import { KvmIoctl } from "../../../../src/layers/kvm/abi/KvmIoctl.ts"
import { MsrEntry, MsrList, Msrs, MsrsHeader } from "../../../../src/layers/kvm/abi/Msr.ts"
import { repeat } from "../../../../src/testing/laws/layoutValues.ts"
import { structures } from "./exports.ts"

const Byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
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
    const again = Result.getOrThrow(layout.decode(encoded))
    assert.deepStrictEqual(again, value)
    assert.deepStrictEqual(Result.getOrThrow(layout.encode(again as never)), encoded)
  })
})

const Mixed = Layout.struct("mixed", { byte: u8("byte"), int: i32("int"), long: i64("long"), words: u64s("words", 2) })
const zeros = { byte: 0, int: 0, long: 0n, words: [0n, 0n] }

describe("the kinds of members", () => {
  it("hold the ends of their ranges, at the places where C has them", () => {
    const least = { byte: 0, int: -(2 ** 31), long: -(2n ** 63n), words: [0n, 1n] }
    const most = { byte: 255, int: 2 ** 31 - 1, long: 2n ** 63n - 1n, words: [2n ** 64n - 1n, 2n] }
    for (const value of [least, most]) {
      assert.deepStrictEqual(Result.getOrThrow(Mixed.decode(Result.getOrThrow(Mixed.encode(value)))), value)
    }
    const bytes = Result.getOrThrow(Mixed.encode({ ...zeros, byte: 0xff, int: -2, words: [0n, 1n] }))
    assert.deepStrictEqual(Array.from(bytes.subarray(0, 8)), [0xff, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff])
    assert.deepStrictEqual(Array.from(bytes.subarray(24)), [1, 0, 0, 0, 0, 0, 0, 0])
  })

  it.each([
    ["byte", "byte", [-1, 256, 0.5, Number.NaN, 1n, "1", undefined]],
    ["int", "int", [2 ** 31, -(2 ** 31) - 1, 0.5, Number.NaN, 1n, undefined]],
    ["long", "long", [2n ** 63n, -(2n ** 63n) - 1n, 1, undefined, null]],
    ["words", "words", [[0n], [0n, 0n, 0n], 0n, undefined, new BigUint64Array(2)]]
  ])("%s refuses what it cannot hold", (name, field, misfits) => {
    for (const value of misfits) {
      const reason = reasonOf(Mixed.encode({ ...zeros, [name]: value }))
      assert.deepStrictEqual(reason, { _tag: "FieldOutOfRange", structure: "mixed", field, value })
    }
  })

  it("a row of words names the word that does not fit", () => {
    assert.deepStrictEqual(reasonOf(Mixed.encode({ ...zeros, words: [0n, -1n] })), {
      _tag: "FieldOutOfRange",
      structure: "mixed",
      field: "words.1",
      value: -1n
    })
  })
})

describe("lists with a count", () => {
  const entry = Schema.Struct({ index: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff })) })

  it.prop("decode(encode(items)) = items, one after the other behind the header", [
    Arbitrary.array(Arbitrary.schema(entry), { maxLength: 20 })
  ], ([indices]) => {
    const items = indices.map(({ index }, position) => ({ index, data: BigInt(position) << 40n }))
    const bytes = Result.getOrThrow(Msrs.encode(items))
    assert.strictEqual(bytes.length, MsrsHeader.size + items.length * MsrEntry.size)
    assert.deepStrictEqual(Result.getOrThrow(Msrs.decode(bytes)), items)
    for (const [position, item] of items.entries()) {
      const at = MsrsHeader.size + position * MsrEntry.size
      assert.deepStrictEqual(Result.getOrThrow(MsrEntry.decode(bytes, at)), item)
    }
  })

  it("room is what KVM fills in, and what it does not need is ignored", () => {
    const bytes = MsrList.room(3)
    assert.strictEqual(bytes.length, 16)
    const words = new Uint32Array(bytes.buffer)
    assert.deepStrictEqual(Array.from(words), [3, 0, 0, 0])
    words.set([2, 0x174, 0xc000_0080])
    assert.deepStrictEqual(Result.getOrThrow(MsrList.decode(bytes)), [0x174, 0xc000_0080])
  })

  it("refuses a count of more items than are there, and bytes too short for a count", () => {
    const bytes = MsrList.room(3)
    new DataView(bytes.buffer).setUint32(0, 0xffff_ffff, true)
    assert.deepStrictEqual(reasonOf(MsrList.decode(bytes)), {
      _tag: "Short",
      structure: "kvm_msr_list",
      expected: 4 + 4 * 0xffff_ffff,
      actual: 16
    })
    for (let length = 0; length < MsrsHeader.size; length++) {
      assert.deepStrictEqual(reasonOf(Msrs.decode(new Uint8Array(length))), {
        _tag: "Short",
        structure: "kvm_msrs",
        expected: MsrsHeader.size,
        actual: length
      })
    }
  })

  it("names the item and the member that do not fit", () => {
    assert.deepStrictEqual(reasonOf(Msrs.encode([{ index: 1, data: 0n }, { index: -1, data: 0n }])), {
      _tag: "FieldOutOfRange",
      structure: "kvm_msrs",
      field: "entries.1.index",
      value: -1
    })
    assert.deepStrictEqual(reasonOf(CountedList.make(MsrsHeader, u8("bytes")).encode([256])), {
      _tag: "FieldOutOfRange",
      structure: "kvm_msrs",
      field: "bytes.0",
      value: 256
    })
  })
})

describe("numbers and names", () => {
  it("every request has a number of its own, though some share a low byte", () => {
    assert.strictEqual(new Set(Object.values(KvmIoctl)).size, Object.keys(KvmIoctl).length)
  })

  it("says what C calls a code, and the bare number where it has no name", () => {
    assert.strictEqual(exitReasonName(2), "KVM_EXIT_IO (2)")
    assert.strictEqual(exitReasonName(99), "KVM_EXIT_99")
    assert.strictEqual(systemEventName(2), "KVM_SYSTEM_EVENT_RESET (2)")
    assert.strictEqual(internalErrorName(1), "KVM_INTERNAL_ERROR_EMULATION (1)")
  })
})
