/**
 * The arithmetic flags of a simulated vCPU. Zero, sign and parity follow from the last result, kept sign-extended;
 * carry and overflow are kept as they are. The auxiliary carry of BCD arithmetic is not modelled.
 */

export const Eflags = {
  Carry: 1 << 0,
  AlwaysSet: 1 << 1,
  Parity: 1 << 2,
  Zero: 1 << 6,
  Sign: 1 << 7,
  Interrupt: 1 << 9,
  Direction: 1 << 10,
  Overflow: 1 << 11
} as const

export const Alu = { Add: 0, Or: 1, Adc: 2, Sbb: 3, And: 4, Sub: 5, Xor: 6, Cmp: 7 } as const

export class Flags {
  carry = 0
  overflow = 0
  result = 1
  private parityOverride = -1

  /** One of the eight operations of the x86 arithmetic group on operands of `size` bytes; sets the flags. */
  alu(operation: number, a: number, b: number, size: number): number {
    switch (operation) {
      case Alu.Add:
        return this.add(a, b, 0, size)
      case Alu.Adc:
        return this.add(a, b, this.carry, size)
      case Alu.Sub:
      case Alu.Cmp:
        return this.subtract(a, b, 0, size)
      case Alu.Sbb:
        return this.subtract(a, b, this.carry, size)
      case Alu.Or:
        return this.logic(a | b, size)
      case Alu.And:
        return this.logic(a & b, size)
      default:
        return this.logic(a ^ b, size)
    }
  }

  add(a: number, b: number, carry: number, size: number): number {
    const shift = 32 - size * 8
    const unsignedA = a << shift >>> shift
    const unsignedB = b << shift >>> shift
    const sum = unsignedA + unsignedB + carry
    const result = sum | 0
    this.carry = sum > 0xffff_ffff >>> shift ? 1 : 0
    this.overflow = (unsignedA ^ result) & (unsignedB ^ result) & signBit(size) ? 1 : 0
    return this.set(result, size)
  }

  subtract(a: number, b: number, borrow: number, size: number): number {
    const shift = 32 - size * 8
    const unsignedA = a << shift >>> shift
    const unsignedB = b << shift >>> shift
    const difference = unsignedA - unsignedB - borrow
    const result = difference | 0
    this.carry = difference < 0 ? 1 : 0
    this.overflow = (unsignedA ^ unsignedB) & (unsignedA ^ result) & signBit(size) ? 1 : 0
    return this.set(result, size)
  }

  logic(result: number, size: number): number {
    this.carry = 0
    this.overflow = 0
    return this.set(result, size)
  }

  /** Increment and decrement leave the carry alone. */
  step(value: number, by: 1 | -1, size: number): number {
    const carry = this.carry
    const result = by === 1 ? this.add(value, 1, 0, size) : this.subtract(value, 1, 0, size)
    this.carry = carry
    return result
  }

  /** Shifts and rotates of the 0xC0 group by `count` (masked to 5 bits); a count of 0 changes no flag. */
  shift(operation: number, value: number, count: number, size: number): number {
    const bits = size * 8
    const by = count & 31
    if (by === 0) return value
    const pad = 32 - bits
    const unsigned = value << pad >>> pad
    switch (operation) {
      case 0: {
        const turn = by % bits
        const rotated = turn === 0 ? unsigned : unsigned << turn | unsigned >>> (bits - turn)
        this.carry = rotated & 1
        this.overflow = (rotated & signBit(size) ? 1 : 0) ^ this.carry
        return rotated
      }
      case 1: {
        const turn = by % bits
        const rotated = turn === 0 ? unsigned : unsigned >>> turn | unsigned << (bits - turn)
        this.carry = rotated & signBit(size) ? 1 : 0
        this.overflow = this.carry ^ (rotated & signBit(size) >>> 1 ? 1 : 0)
        return rotated
      }
      case 4:
      case 6: {
        this.carry = by <= bits ? Math.floor(unsigned / 2 ** (bits - by)) & 1 : 0
        const result = by >= bits ? 0 : unsigned << by
        this.overflow = (result & signBit(size) ? 1 : 0) ^ this.carry
        return this.set(result, size)
      }
      case 5:
        this.carry = by <= bits ? unsigned >>> (by - 1) & 1 : 0
        this.overflow = unsigned & signBit(size) ? 1 : 0
        return this.set(by >= bits ? 0 : unsigned >>> by, size)
      default: {
        const signed = value << pad >> pad
        this.carry = signed >> Math.min(by - 1, 31) & 1
        this.overflow = 0
        return this.set(signed >> Math.min(by, 31), size)
      }
    }
  }

  /** One of the sixteen conditions of Jcc, by its low four opcode bits. */
  holds(condition: number): boolean {
    const isNegated = (condition & 1) !== 0
    return this.base(condition >> 1) !== isNegated
  }

  get bits(): number {
    return Eflags.AlwaysSet | (this.carry ? Eflags.Carry : 0) | (this.isParityEven ? Eflags.Parity : 0) |
      (this.result === 0 ? Eflags.Zero : 0) | (this.result < 0 ? Eflags.Sign : 0) |
      (this.overflow ? Eflags.Overflow : 0)
  }

  set bits(value: number) {
    this.carry = value & Eflags.Carry ? 1 : 0
    this.overflow = value & Eflags.Overflow ? 1 : 0
    this.result = value & Eflags.Zero ? 0 : value & Eflags.Sign ? -1 : 1
    this.parityOverride = value & Eflags.Parity ? 1 : 0
  }

  private base(condition: number): boolean {
    switch (condition) {
      case 0:
        return this.overflow !== 0
      case 1:
        return this.carry !== 0
      case 2:
        return this.result === 0
      case 3:
        return this.carry !== 0 || this.result === 0
      case 4:
        return this.result < 0
      case 5:
        return this.isParityEven
      case 6:
        return this.result < 0 !== (this.overflow !== 0)
      default:
        return this.result === 0 || this.result < 0 !== (this.overflow !== 0)
    }
  }

  private set(result: number, size: number): number {
    const shift = 32 - size * 8
    this.result = result << shift >> shift
    this.parityOverride = -1
    return result
  }

  private get isParityEven(): boolean {
    if (this.parityOverride >= 0) return this.parityOverride === 1
    let low = this.result & 0xff
    low ^= low >> 4
    low ^= low >> 2
    low ^= low >> 1
    return (low & 1) === 0
  }
}

const signBit = (size: number): number => size === 4 ? 0x8000_0000 : size === 2 ? 0x8000 : 0x80
