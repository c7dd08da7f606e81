/**
 * The 64-bit FNV-1a hash (RFC 9923), byte by byte: the same number on every machine, for comparing runs and not for
 * keeping secrets.
 */

// The prime is 2^40 + 0x1b3; the hash is kept as two words, so that no step needs a bigint.
const PRIME_LOW = 0x1b3
const WORD = 2 ** 32

export class Fnv1a64 {
  private high = 0xcbf2_9ce4
  private low = 0x8422_2325

  byte(value: number): void {
    const low = (this.low ^ (value & 0xff)) >>> 0
    const product = low * PRIME_LOW
    // Bit 40 of the prime moves the low word 8 bits into the high one.
    this.high = (Math.imul(this.high, PRIME_LOW) + Math.floor(product / WORD) + (low << 8)) >>> 0
    this.low = product >>> 0
  }

  /** A whole number from 0 to 2^53 - 1, as eight bytes, lowest first. */
  number(value: number): void {
    this.word(value >>> 0)
    this.word(Math.floor(value / WORD))
  }

  /** The low 64 bits, lowest byte first. */
  bigint(value: bigint): void {
    this.word(Number(BigInt.asUintN(32, value)))
    this.word(Number(BigInt.asUintN(32, value >> 32n)))
  }

  /** The code units, with their count before them, so that two texts in a row are not taken for two others. */
  text(value: string): void {
    this.word(value.length)
    for (let i = 0; i < value.length; i++) {
      const unit = value.charCodeAt(i)
      this.byte(unit)
      this.byte(unit >>> 8)
    }
  }

  /** 16 hexadecimal digits. */
  toString(): string {
    return this.high.toString(16).padStart(8, "0") + this.low.toString(16).padStart(8, "0")
  }

  private word(value: number): void {
    this.byte(value)
    this.byte(value >>> 8)
    this.byte(value >>> 16)
    this.byte(value >>> 24)
  }
}
