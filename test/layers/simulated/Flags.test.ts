import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Alu, Eflags, Flags } from "../../../src/layers/simulated/Flags.ts"

const Size = Schema.Literals([1, 2, 4])
const Edge = Schema.Literals([0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])
const Operand = Schema.Union([Edge, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff }))])
const Operation = Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7])

interface Outcome {
  readonly result: bigint
  readonly carry: boolean
  readonly overflow: boolean
}

const signed = (value: bigint, bits: number): bigint => BigInt.asIntN(bits, value)

/** The SDM's definition in unbounded integers: the true result, and whether it fits unsigned and signed. */
const arithmetic = (operation: number, a: bigint, b: bigint, carryIn: bigint, bits: number): Outcome => {
  const outcome = (exact: bigint, exactSigned: bigint): Outcome => ({
    result: BigInt.asUintN(bits, exact),
    carry: exact < 0n || exact >= 1n << BigInt(bits),
    overflow: signed(exactSigned, bits) !== exactSigned
  })
  const [sa, sb] = [signed(a, bits), signed(b, bits)]
  const logic = (result: bigint): Outcome => ({ result, carry: false, overflow: false })
  switch (operation) {
    case Alu.Add:
      return outcome(a + b, sa + sb)
    case Alu.Adc:
      return outcome(a + b + carryIn, sa + sb + carryIn)
    case Alu.Sub:
    case Alu.Cmp:
      return outcome(a - b, sa - sb)
    case Alu.Sbb:
      return outcome(a - b - carryIn, sa - sb - carryIn)
    case Alu.Or:
      return logic(a | b)
    case Alu.And:
      return logic(a & b)
    default:
      return logic(a ^ b)
  }
}

const evenParity = (value: bigint): boolean => {
  let ones = 0
  for (let bit = 0n; bit < 8n; bit++) ones += Number(value >> bit & 1n)
  return ones % 2 === 0
}

const assertResultFlags = (flags: Flags, result: bigint, bits: number): void => {
  assert.strictEqual((flags.bits & Eflags.Zero) !== 0, result === 0n, "zero")
  assert.strictEqual((flags.bits & Eflags.Sign) !== 0, signed(result, bits) < 0n, "sign")
  assert.strictEqual((flags.bits & Eflags.Parity) !== 0, evenParity(result), "parity")
}

const withCarry = (carry: boolean): Flags => {
  const flags = new Flags()
  flags.bits = carry ? Eflags.Carry : 0
  return flags
}

const carryOf = (flags: Flags): boolean => (flags.bits & Eflags.Carry) !== 0
const overflowOf = (flags: Flags): boolean => (flags.bits & Eflags.Overflow) !== 0
const cut = (value: number, bits: number): bigint => BigInt.asUintN(bits, BigInt(value))

describe("Flags", () => {
  it.prop(
    "the eight operations give the result and the flags of unbounded arithmetic",
    [Operation, Size, Operand, Operand, Schema.Boolean],
    ([operation, size, a, b, carry]) => {
      const bits = size * 8
      const flags = withCarry(carry)
      const result = cut(flags.alu(operation, a, b, size), bits)
      const expected = arithmetic(operation, cut(a, bits), cut(b, bits), carry ? 1n : 0n, bits)
      assert.strictEqual(result, expected.result)
      assert.strictEqual(carryOf(flags), expected.carry, "carry")
      assert.strictEqual(overflowOf(flags), expected.overflow, "overflow")
      assertResultFlags(flags, result, bits)
    },
    { arbitrary: { runs: 4000 } }
  )

  it.prop("increment and decrement leave the carry alone", [Size, Operand, Schema.Boolean, Schema.Literals([1, -1])], (
    [size, value, carry, by]
  ) => {
    const bits = size * 8
    const flags = withCarry(carry)
    const result = cut(flags.step(value, by, size), bits)
    const expected = arithmetic(by === 1 ? Alu.Add : Alu.Sub, cut(value, bits), 1n, 0n, bits)
    assert.strictEqual(result, expected.result)
    assert.strictEqual(carryOf(flags), carry)
    assert.strictEqual(overflowOf(flags), expected.overflow)
    assertResultFlags(flags, result, bits)
  }, { arbitrary: { runs: 1000 } })

  const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))

  it.prop("shifts move one bit at a time, the last one out is the carry", [
    Schema.Literals([4, 5, 6, 7]),
    Size,
    Operand,
    Count,
    Schema.Boolean
  ], ([operation, size, operand, count, carry]) => {
    const bits = size * 8
    const flags = withCarry(carry)
    const before = flags.bits
    const shifted = cut(flags.shift(operation, operand, count, size), bits)
    let value = cut(operand, bits)
    let out = carry
    for (let i = 0; i < (count & 31); i++) {
      const isLeft = operation === 4 || operation === 6
      out = isLeft ? value >> BigInt(bits - 1) === 1n : (value & 1n) === 1n
      value = isLeft
        ? BigInt.asUintN(bits, value << 1n)
        : operation === 5
        ? value >> 1n
        : BigInt.asUintN(bits, signed(value, bits) >> 1n)
    }
    assert.strictEqual(shifted, value)
    if ((count & 31) === 0) return assert.strictEqual(flags.bits, before, "a count of 0 changes no flag")
    assertResultFlags(flags, value, bits)
    // The carry is undefined for SHL and SHR by more than the operand has bits.
    if ((count & 31) <= bits || operation === 7) assert.strictEqual(carryOf(flags), out, "carry")
    if ((count & 31) === 1) {
      const top = (word: bigint) => word >> BigInt(bits - 1) === 1n
      const original = cut(operand, bits)
      assert.strictEqual(
        overflowOf(flags),
        operation === 5 ? top(original) : operation === 7 ? false : top(value) !== out,
        "overflow"
      )
    }
  }, { arbitrary: { runs: 3000 } })

  it.prop("rotates move one bit at a time and set only carry and overflow", [
    Schema.Literals([0, 1]),
    Size,
    Operand,
    Count,
    Schema.Boolean
  ], ([operation, size, operand, count, carry]) => {
    const bits = size * 8
    const flags = withCarry(carry)
    flags.bits = flags.bits | Eflags.Zero
    const before = flags.bits
    const rotated = cut(flags.shift(operation, operand, count, size), bits)
    let value = cut(operand, bits)
    const top = (word: bigint, bit = bits - 1) => (word >> BigInt(bit) & 1n) === 1n
    for (let i = 0; i < (count & 31); i++) {
      value = operation === 0
        ? BigInt.asUintN(bits, value << 1n) | value >> BigInt(bits - 1)
        : value >> 1n | (value & 1n) << BigInt(bits - 1)
    }
    assert.strictEqual(rotated, value)
    if ((count & 31) === 0) return assert.strictEqual(flags.bits, before)
    const expectedCarry = operation === 0 ? (value & 1n) === 1n : top(value)
    assert.strictEqual(carryOf(flags), expectedCarry, "carry")
    const others = ~(Eflags.Carry | Eflags.Overflow)
    assert.strictEqual(flags.bits & others, before & others)
    if ((count & 31) === 1) {
      assert.strictEqual(
        overflowOf(flags),
        operation === 0 ? top(value) !== expectedCarry : top(value) !== top(value, bits - 2),
        "overflow"
      )
    }
  }, { arbitrary: { runs: 3000 } })

  it.prop("the sixteen conditions are what the SDM says of the flags", [Size, Operand, Operand], ([size, a, b]) => {
    const flags = new Flags()
    flags.alu(Alu.Cmp, a, b, size)
    const bits = size * 8
    const [ua, ub] = [cut(a, bits), cut(b, bits)]
    const [sa, sb] = [signed(ua, bits), signed(ub, bits)]
    const difference = BigInt.asUintN(bits, ua - ub)
    const overflow = signed(sa - sb, bits) !== sa - sb
    const expected = [
      overflow,
      ua < ub,
      ua === ub,
      ua <= ub,
      signed(difference, bits) < 0n,
      evenParity(difference),
      sa < sb,
      sa <= sb
    ]
    expected.forEach((value, pair) => {
      assert.strictEqual(flags.holds(pair * 2), value, `condition ${pair * 2}`)
      assert.strictEqual(flags.holds(pair * 2 + 1), !value, `condition ${pair * 2 + 1}`)
    })
  }, { arbitrary: { runs: 2000 } })

  it.prop("bits survive being written back", [Operation, Size, Operand, Operand], ([operation, size, a, b]) => {
    const flags = new Flags()
    flags.alu(operation, a, b, size)
    const copy = new Flags()
    copy.bits = flags.bits
    assert.strictEqual(copy.bits, flags.bits)
    for (let condition = 0; condition < 16; condition++) {
      assert.strictEqual(copy.holds(condition), flags.holds(condition))
    }
  })
})
