/**
 * 64-bit x86 machine code: what it writes in another way than 32-bit code.
 *
 * All else has the same bytes and comes to the same: 32-bit operations clear the upper halves of their registers,
 * pushes and pops go in pairs, and every address in a register is below 4 GiB.
 */
import { MachineCode, REX_W } from "./MachineCode.ts"

const LAST_WORD = 0xffff_ffffn

export class LongCode extends MachineCode {
  override setAccumulator(value: number | bigint): void {
    if (BigInt(value) <= LAST_WORD) return super.setAccumulator(value)
    this.bytes.push(REX_W, 0xb8)
    this.doubleWord(BigInt(value))
  }

  /** With a SIB byte of no base and no index: without it the address would count from the next instruction. */
  override storeDestination(address: number): void {
    this.bytes.push(0x89, 0x3c, 0x25)
    this.word(address)
  }

  /** The long form, since the short one is a prefix here. */
  protected override countDown(): void {
    this.bytes.push(0xff, 0xc9)
  }

  protected override offset(address: number): void {
    this.doubleWord(BigInt(address))
  }

  private doubleWord(value: bigint): void {
    this.word(Number(value & LAST_WORD))
    this.word(Number(value >> 32n))
  }
}
