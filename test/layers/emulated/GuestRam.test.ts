import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { CoreMemory } from "../../../src/layers/emulated/CoreMemory.ts"
import { CpuError } from "../../../src/layers/emulated/CpuError.ts"
import { makeGuestRam, type OwnedGuestRam } from "../../../src/layers/emulated/GuestRam.ts"

const BASE = 64
const BYTES = 256

const Operation = Schema.TaggedUnion({
  Load: { offset: Schema.Int },
  Store: { offset: Schema.Int, value: Schema.Int },
  Read: { offset: Schema.Int, length: Schema.Int },
  Write: { offset: Schema.Int, bytes: Schema.Array(Schema.Int) },
  Fill: { offset: Schema.Int, length: Schema.Int, byte: Schema.Int },
  Grow: {}
})
type Operation = typeof Operation.Type

const offset = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: -8, maximum: BYTES + 8 })))
const byte = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
const word = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: -(2 ** 31), maximum: 2 ** 31 - 1 })))
const operations = Arbitrary.array(
  Arbitrary.all([offset, offset, byte, word, Arbitrary.array(byte, { maxLength: 40 })]).pipe(
    Arbitrary.map(([at, length, value, stored, bytes]): Operation => {
      switch (value % 6) {
        case 0:
          return Operation.cases.Load.make({ offset: at })
        case 1:
          return Operation.cases.Store.make({ offset: value % 12 < 6 ? at & ~3 : at, value: stored })
        case 2:
          return Operation.cases.Read.make({ offset: at, length })
        case 3:
          return Operation.cases.Write.make({ offset: at, bytes })
        case 4:
          return Operation.cases.Fill.make({ offset: at, length, byte: value })
        default:
          return Operation.cases.Grow.make({})
      }
    })
  ),
  { maxLength: 30 }
)

/** A memory whose buffer is replaced and detached when it grows, as that of wasm. */
const growing = () => {
  let buffer = new ArrayBuffer(BASE + BYTES + 64)
  return {
    memory: {
      get buffer() {
        return buffer
      }
    },
    grow: () => {
      buffer = buffer.transfer(buffer.byteLength + 64)
    },
    all: () => new Uint8Array(buffer)
  }
}

const attempt = <A>(f: () => A): A | string => {
  try {
    return f()
  } catch (cause) {
    assert.instanceOf(cause, CpuError)
    return cause.reason._tag
  }
}

const apply = ({ ram }: OwnedGuestRam, operation: Operation): unknown => {
  switch (operation._tag) {
    case "Load":
      return ram.load32(operation.offset)
    case "Store":
      return ram.store32(operation.offset, operation.value)
    case "Read":
      return [...ram.read(operation.offset, operation.length)]
    case "Write":
      return ram.write(operation.offset, Uint8Array.from(operation.bytes))
    case "Fill":
      return ram.fill(operation.offset, operation.length, operation.byte)
    case "Grow":
      return undefined
  }
}

/** The same on a plain array of bytes, with the ranges that were written. */
const model = (
  bytes: Uint8Array<ArrayBuffer>,
  written: Array<readonly [number, number]>,
  operation: Operation
): unknown => {
  if (operation._tag === "Grow") {
    return undefined
  }
  const at = operation.offset
  const length = operation._tag === "Load" || operation._tag === "Store"
    ? 4
    : operation._tag === "Write"
    ? operation.bytes.length
    : operation.length
  if (at < 0 || length < 0 || at + length > BYTES) {
    return "OutOfRange"
  }
  if ((operation._tag === "Load" || operation._tag === "Store") && at % 4 !== 0) {
    return "Misaligned"
  }
  if (operation._tag !== "Load" && operation._tag !== "Read" && length > 0) {
    written.push([at, at + length])
  }
  switch (operation._tag) {
    case "Load":
      return new DataView(bytes.buffer).getInt32(at, true)
    case "Store":
      return new DataView(bytes.buffer).setInt32(at, operation.value, true)
    case "Read":
      return Array.from(bytes.subarray(at, at + length))
    case "Write":
      bytes.set(operation.bytes, at)
      return undefined
    case "Fill":
      bytes.fill(operation.byte, at, at + length)
      return undefined
  }
}

describe("GuestRam", () => {
  it.effect.prop(
    "does what an array of bytes does, refuses what is not inside, and tells of each write",
    [operations],
    ([commands]) =>
      Effect.sync(() => {
        const { all, grow, memory } = growing()
        const heard: Array<readonly [number, number]> = []
        const owned = makeGuestRam(new CoreMemory(memory), BASE, BYTES, (start, end) => heard.push([start, end]))
        const bytes = new Uint8Array(BYTES)
        const written: Array<readonly [number, number]> = []
        for (const operation of commands) {
          if (operation._tag === "Grow") {
            grow()
          }
          assert.deepStrictEqual(attempt(() => apply(owned, operation)), model(bytes, written, operation))
        }
        assert.deepStrictEqual(heard, written)
        assert.deepStrictEqual(all().slice(BASE, BASE + BYTES), bytes)
        assert.isTrue(all().slice(0, BASE).every((value) => value === 0))
        assert.isTrue(all().slice(BASE + BYTES).every((value) => value === 0))
      })
  )

  it("gives copies, which later writes do not change", () => {
    const { memory } = growing()
    const { ram } = makeGuestRam(new CoreMemory(memory), BASE, BYTES, () => undefined)
    const copy = ram.read(0, 4)
    ram.fill(0, 4, 7)
    assert.deepStrictEqual([...copy], [0, 0, 0, 0])
    const target = new Uint8Array(4)
    ram.readInto(0, target)
    target.fill(9)
    assert.strictEqual(ram.load32(0), 0x0707_0707)
  })

  it.each([0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])("refuses offset %d", (at) => {
    const { memory } = growing()
    const { ram } = makeGuestRam(new CoreMemory(memory), BASE, BYTES, () => undefined)
    for (
      const operation of [
        () => ram.load32(at),
        () => ram.store32(at, 1),
        () => ram.read(at, 1),
        () => ram.readInto(at, new Uint8Array(1)),
        () => ram.write(at, Uint8Array.of(1)),
        () => ram.fill(at, 1, 1),
        () => ram.read(0, at)
      ]
    ) {
      assert.strictEqual(attempt(operation), "OutOfRange")
    }
  })

  it("has nothing any more once it is released", () => {
    const { memory } = growing()
    const { ram, release } = makeGuestRam(new CoreMemory(memory), BASE, BYTES, () => assert.fail("told of a write"))
    release()
    assert.strictEqual(ram.byteLength, 0)
    assert.strictEqual(attempt(() => ram.write(0, Uint8Array.of(1))), "OutOfRange")
    assert.strictEqual(attempt(() => ram.load32(0)), "OutOfRange")
  })
})
