/**
 * The pair of 8259A interrupt controllers of a PC: 15 lines, fixed priority, 8086 mode. It answers its ports inside the
 * hypervisor, as an in-kernel interrupt controller does.
 *
 * Source: Intel 8259A data sheet (order number 231468).
 */

const SLAVE_LINE = 2
const ICW1 = 0x10
const ICW1_WITH_ICW4 = 0x01
const OCW3 = 0x08
const READ_REGISTER = 0x02
const READ_IN_SERVICE = 0x01
const EOI = 0x20
const SPECIFIC = 0x40

class Chip {
  vectorBase = 0
  private lines = 0
  private request = 0
  private inService = 0
  private mask = 0xff
  private initStep = 0
  private wantsIcw4 = false
  private autoEoi = false
  private readsInService = false

  setLine(line: number, high: boolean): void {
    const bit = 1 << line
    // An edge stays latched when the line falls before it is served, so that a pulse is never lost.
    if (high && (this.lines & bit) === 0) this.request |= bit
    this.lines = high ? this.lines | bit : this.lines & ~bit
  }

  /** The other chip's output, which is no edge but a condition. */
  setCascade(high: boolean): void {
    const bit = 1 << SLAVE_LINE
    this.request = high ? this.request | bit : this.request & ~bit
  }

  /** The line to serve next, or -1: the lowest number is the most urgent. */
  pending(): number {
    const ready = this.request & ~this.mask
    if (ready === 0) return -1
    const line = lowestBit(ready)
    return this.inService !== 0 && lowestBit(this.inService) <= line ? -1 : line
  }

  acknowledge(line: number): void {
    this.request &= ~(1 << line)
    if (!this.autoEoi) this.inService |= 1 << line
  }

  write(offset: number, value: number): void {
    if (offset === 0) this.writeCommand(value)
    else this.writeData(value)
  }

  read(offset: number): number {
    if (offset === 1) return this.mask
    return this.readsInService ? this.inService : this.request
  }

  private writeCommand(value: number): void {
    if ((value & ICW1) !== 0) {
      this.initStep = 2
      this.wantsIcw4 = (value & ICW1_WITH_ICW4) !== 0
      this.autoEoi = false
      this.mask = 0
      this.request = 0
      this.inService = 0
      this.readsInService = false
    } else if ((value & OCW3) !== 0) {
      if ((value & READ_REGISTER) !== 0) this.readsInService = (value & READ_IN_SERVICE) !== 0
    } else if ((value & EOI) !== 0) {
      const line = (value & SPECIFIC) !== 0 ? value & 7 : lowestBit(this.inService)
      this.inService &= ~(1 << line)
    }
  }

  private writeData(value: number): void {
    switch (this.initStep) {
      case 2:
        this.vectorBase = value & 0xf8
        this.initStep = 3
        return
      case 3:
        this.initStep = this.wantsIcw4 ? 4 : 0
        return
      case 4:
        this.autoEoi = (value & 0x02) !== 0
        this.initStep = 0
        return
      default:
        this.mask = value
    }
  }
}

const lowestBit = (bits: number): number => bits === 0 ? 8 : 31 - Math.clz32(bits & -bits)

const isEdgeLevel = (port: number): boolean => (port & ~1) === 0x4d0

export class Pic8259 {
  private master = new Chip()
  private slave = new Chip()
  // Which lines are level-triggered: kept for who reads it back, as every line is served by its edge here.
  private readonly edgeLevel = new Uint8Array(2)

  reset(): void {
    this.master = new Chip()
    this.slave = new Chip()
    this.edgeLevel.fill(0)
  }

  setLine(line: number, high: boolean): void {
    if (line >= 8) this.slave.setLine(line - 8, high)
    else if (line !== SLAVE_LINE) this.master.setLine(line, high)
    this.cascade()
  }

  /** Whether the processor's INTR pin is high. */
  get isPending(): boolean {
    return this.master.pending() >= 0
  }

  /** The vector of the interrupt to take now, or -1. */
  acknowledge(): number {
    const line = this.master.pending()
    if (line < 0) return -1
    this.master.acknowledge(line)
    if (line !== SLAVE_LINE) return this.master.vectorBase + line
    const slaveLine = this.slave.pending()
    if (slaveLine < 0) return -1
    this.slave.acknowledge(slaveLine)
    this.cascade()
    return this.slave.vectorBase + slaveLine
  }

  /** Whether a port is one of the pair's: 0x20, 0x21, 0xA0, 0xA1, and the edge/level registers 0x4D0 and 0x4D1. */
  static owns(port: number): boolean {
    return (port & ~0x81) === 0x20 || isEdgeLevel(port)
  }

  read(port: number): number {
    if (isEdgeLevel(port)) return this.edgeLevel[port & 1]!
    return (port < 0x80 ? this.master : this.slave).read(port & 1)
  }

  write(port: number, value: number): void {
    if (isEdgeLevel(port)) {
      this.edgeLevel[port & 1] = value
      return
    }
    ;(port < 0x80 ? this.master : this.slave).write(port & 1, value & 0xff)
    this.cascade()
  }

  private cascade(): void {
    this.master.setCascade(this.slave.pending() >= 0)
  }
}
