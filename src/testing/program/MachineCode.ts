/**
 * 32-bit x86 machine code, written instruction by instruction.
 *
 * Encodings: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
 */

/** Bytes of one access. Only 64-bit code makes one of 8: see `LongCode`. */
export type Width = 1 | 2 | 4 | 8

const OPERAND_SIZE = 0x66
const REPEAT = 0xf3
export const REX_W = 0x48

export class MachineCode {
  protected readonly bytes: Array<number> = []

  get length(): number {
    return this.bytes.length
  }

  toBytes(): Uint8Array {
    return Uint8Array.from(this.bytes)
  }

  raw(bytes: Iterable<number>): void {
    for (const byte of bytes) this.bytes.push(byte)
  }

  setAccumulator(value: number | bigint): void {
    this.bytes.push(0xb8)
    this.word(Number(value))
  }

  /** The short form, for ports below 0x100; the long one takes the port in DX. */
  portIn(port: number, width: Width): void {
    if (port < 0x100) this.sized(0xe4, width, port)
    else {
      this.setPort(port)
      this.sized(0xec, width)
    }
  }

  portOut(port: number, width: Width): void {
    if (port < 0x100) this.sized(0xe6, width, port)
    else {
      this.setPort(port)
      this.sized(0xee, width)
    }
  }

  /** REP INS to EDI and up. */
  stringIn(port: number, width: Width, count: number): void {
    this.setPort(port)
    this.setCount(count)
    this.bytes.push(REPEAT)
    this.sized(0x6c, width)
  }

  /** REP OUTS from `address` and up. */
  stringOut(port: number, width: Width, count: number, address: number): void {
    this.bytes.push(0xbe)
    this.word(address)
    this.setPort(port)
    this.setCount(count)
    this.bytes.push(REPEAT)
    this.sized(0x6e, width)
  }

  /** Writes PCI's address register, port 0xCF8, and leaves EAX as it was. */
  selectConfig(word: number): void {
    this.bytes.push(0x50)
    this.setAccumulator(word)
    this.portOut(0xcf8, 4)
    this.bytes.push(0x58)
  }

  /** EAX = (EAX rotated left + `addend`) XOR `mask`. */
  workRound(rotation: number, addend: number, mask: number): void {
    this.bytes.push(0xc1, 0xc0, rotation, 0x05)
    this.word(addend)
    this.bytes.push(0x35)
    this.word(mask)
  }

  load(address: number, width: Width): void {
    this.sized(0xa0, width)
    this.offset(address)
  }

  store(address: number, width: Width): void {
    this.sized(0xa2, width)
    this.offset(address)
  }

  /** Puts the low bytes of the accumulator at EDI and moves EDI on. */
  appendAccumulator(width: 4 | 8): void {
    this.sized(0xaa, width)
  }

  /** Moves EDI up to a multiple of 4. */
  alignDestination(): void {
    this.bytes.push(0x83, 0xc7, 0x03, 0x83, 0xe7, 0xfc)
  }

  storeDestination(address: number): void {
    this.bytes.push(0x89, 0x3d)
    this.word(address)
  }

  /** Does `body` `times` times, at least once; the count is on the stack meanwhile. */
  repeat(times: number, body: () => void): void {
    this.setCount(times)
    const start = this.length
    this.bytes.push(0x51)
    body()
    this.bytes.push(0x59)
    this.countDown()
    // JNZ, with a distance that is counted from its own end.
    this.bytes.push(0x0f, 0x85)
    this.word(start - (this.length + 4))
  }

  /** With interrupts off nothing ends this HLT. */
  halt(): void {
    this.bytes.push(0xfa, 0xf4)
  }

  /** DEC ECX. */
  protected countDown(): void {
    this.bytes.push(0x49)
  }

  /** The address of a load or store of the accumulator. */
  protected offset(address: number): void {
    this.word(address)
  }

  protected word(value: number): void {
    this.bytes.push(value & 0xff, value >>> 8 & 0xff, value >>> 16 & 0xff, value >>> 24 & 0xff)
  }

  private setPort(port: number): void {
    this.bytes.push(0xba)
    this.word(port)
  }

  private setCount(count: number): void {
    this.bytes.push(0xb9)
    this.word(count)
  }

  /** An opcode whose low bit tells bytes from words, and whose words a prefix makes shorter or longer. */
  private sized(opcode: number, width: Width, ...operands: ReadonlyArray<number>): void {
    if (width === 2) this.bytes.push(OPERAND_SIZE)
    if (width === 8) this.bytes.push(REX_W)
    this.bytes.push(width === 1 ? opcode : opcode + 1, ...operands)
  }
}
