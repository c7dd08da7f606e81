/**
 * The registers of a 16550A serial port, without a wire behind them: what a read answers, what a write does, when the
 * interrupt pin is high.
 *
 * Facts: National Semiconductor PC16550D data sheet (June 1995), sections 8.1 to 8.11. Line speed, word length, parity
 * and break are kept in their registers and have no effect: characters are eight bits and take no guest time, so the
 * transmitter is always empty, and a character timeout has elapsed as soon as nothing more is to come.
 *
 * @since 0.1.0
 */

/**
 * Bytes that each of the chip's FIFOs holds.
 *
 * @category constants
 * @since 0.1.0
 */
export const FIFO_BYTES = 16

/**
 * What the chip drives. Both are called in the stack of the access that caused them; `interrupt` only on a change.
 *
 * @category models
 * @since 0.1.0
 */
export interface Uart16550Wires {
  /** A byte left the transmitter. */
  readonly transmit: (byte: number) => void
  /** The INTR pin went high or low. */
  readonly interrupt: (high: boolean) => void
}

/** Offsets from the base port. */
const DATA = 0
const IER = 1
const IIR_FCR = 2
const LCR = 3
const MCR = 4
const LSR = 5
const MSR = 6

const IER_RECEIVED = 0x01
const IER_TRANSMITTER_EMPTY = 0x02
const IER_LINE_STATUS = 0x04
const IER_MODEM_STATUS = 0x08

/** Interrupt sources as the IIR shows them, highest priority first. */
const SOURCE_LINE_STATUS = 0x06
const SOURCE_RECEIVED = 0x04
const SOURCE_TIMEOUT = 0x0c
const SOURCE_TRANSMITTER_EMPTY = 0x02
const SOURCE_MODEM_STATUS = 0x00
const SOURCE_NONE = 0x01
const IIR_FIFOS_ON = 0xc0

const FCR_ENABLE = 0x01
const FCR_CLEAR_RECEIVER = 0x02
const TRIGGERS = [1, 4, 8, 14] as const

const LCR_DLAB = 0x80

const MCR_DTR = 0x01
const MCR_RTS = 0x02
const MCR_OUT1 = 0x04
const MCR_OUT2 = 0x08
const MCR_LOOP = 0x10

const LSR_DATA_READY = 0x01
const LSR_OVERRUN = 0x02
const LSR_TRANSMITTER_EMPTY = 0x60

const MSR_CTS = 0x10
const MSR_DSR = 0x20
const MSR_RI = 0x40
const MSR_DCD = 0x80
const MSR_DELTAS = 0x0f
// The other end of the line is a terminal that is there and ready.
const CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD

/**
 * One 16550A. Bytes from the line wait outside the chip until its receiver has room, so none is lost; only loopback can
 * overrun.
 *
 * @category models
 * @since 0.1.0
 */
export class Uart16550Chip {
  private ier = 0
  private isFifoOn = false
  private trigger = 1
  private lcr = 0
  private mcr = 0
  private overrun = 0
  private msr = CONNECTED
  private scratch = 0
  private divisor = 0
  private isTransmitterEmptyPending = false
  private hasTimedOut = true
  private isInterrupting = false

  private readonly fifo = new Uint8Array(FIFO_BYTES)
  private head = 0
  private held = 0

  private backlog: Array<Uint8Array> = []
  private backlogHead = 0
  private backlogLength = 0
  private readonly wires: Uart16550Wires

  constructor(wires: Uart16550Wires) {
    this.wires = wires
  }

  /** Bytes from the line that the receiver had no room for yet. */
  get backlogBytes(): number {
    return this.backlogLength
  }

  /** Bytes in the receiver FIFO, or in the receiver buffer while FIFOs are off. */
  get receivedBytes(): number {
    return this.held
  }

  /** Reads the register at `offset`, 0 to 7, with the effects that reading has. */
  read(offset: number): number {
    switch (offset) {
      case DATA:
        return this.isDivisorShown ? this.divisor & 0xff : this.readData()
      case IER:
        return this.isDivisorShown ? this.divisor >>> 8 : this.ier
      case IIR_FCR:
        return this.readInterruptIdentification()
      case LCR:
        return this.lcr
      case MCR:
        return this.mcr
      case LSR:
        return this.readLineStatus()
      case MSR:
        return this.readModemStatus()
      default:
        return this.scratch
    }
  }

  /** Writes a byte to the register at `offset`, 0 to 7. The status registers ignore writes. */
  write(offset: number, value: number): void {
    switch (offset) {
      case DATA:
        if (this.isDivisorShown) this.divisor = this.divisor & 0xff00 | value
        else this.transmit(value)
        return
      case IER:
        if (this.isDivisorShown) this.divisor = this.divisor & 0xff | value << 8
        else this.writeInterruptEnable(value)
        return
      case IIR_FCR:
        return this.writeFifoControl(value)
      case LCR:
        this.lcr = value
        return
      case MCR:
        return this.writeModemControl(value)
      case LSR:
      case MSR:
        return
      default:
        this.scratch = value
    }
  }

  /** Bytes arrive on the line. They are copied. */
  receive(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.backlog.push(bytes.slice())
    this.backlogLength += bytes.length
    this.refill()
    this.update()
  }

  /** The reset pin: registers and FIFOs as after power-on. Bytes still on the line stay there. */
  reset(): void {
    this.ier = 0
    this.isFifoOn = false
    this.trigger = 1
    this.lcr = 0
    this.mcr = 0
    this.overrun = 0
    this.msr = CONNECTED
    this.isTransmitterEmptyPending = false
    this.held = 0
    this.refill()
    this.update()
  }

  private get isDivisorShown(): boolean {
    return (this.lcr & LCR_DLAB) !== 0
  }

  private get isLooped(): boolean {
    return (this.mcr & MCR_LOOP) !== 0
  }

  private get capacity(): number {
    return this.isFifoOn ? FIFO_BYTES : 1
  }

  private readData(): number {
    if (this.held === 0) return 0
    const byte = this.fifo[this.head]!
    this.head = (this.head + 1) % FIFO_BYTES
    this.held--
    // Taking a character ends a timeout, and an edge-triggered interrupt controller has to see the end: it is how a
    // driver that takes one character per interrupt hears of the next.
    this.hasTimedOut = false
    this.update()
    this.hasTimedOut = true
    this.refill()
    this.update()
    return byte
  }

  private readInterruptIdentification(): number {
    const source = this.source()
    if (source === SOURCE_TRANSMITTER_EMPTY) {
      this.isTransmitterEmptyPending = false
      this.update()
    }
    return this.isFifoOn ? source | IIR_FIFOS_ON : source
  }

  private readLineStatus(): number {
    const status = (this.held > 0 ? LSR_DATA_READY : 0) | this.overrun | LSR_TRANSMITTER_EMPTY
    if (this.overrun !== 0) {
      this.overrun = 0
      this.update()
    }
    return status
  }

  private readModemStatus(): number {
    const status = this.msr
    this.msr &= ~MSR_DELTAS
    this.update()
    return status
  }

  private writeInterruptEnable(value: number): void {
    const before = this.ier
    this.ier = value & 0x0f
    // Enabling the interrupt of an empty transmitter raises it; Linux's 8250 driver tests for that.
    if ((this.ier & ~before & IER_TRANSMITTER_EMPTY) !== 0) this.isTransmitterEmptyPending = true
    this.update()
  }

  private writeFifoControl(value: number): void {
    const isOn = (value & FCR_ENABLE) !== 0
    // The other bits are only taken together with the enable bit; switching the FIFOs on or off empties them.
    if (isOn !== this.isFifoOn || (isOn && (value & FCR_CLEAR_RECEIVER) !== 0)) this.held = 0
    this.isFifoOn = isOn
    this.trigger = isOn ? TRIGGERS[value >>> 6 & 3]! : 1
    this.refill()
    this.update()
  }

  private writeModemControl(value: number): void {
    this.mcr = value & 0x1f
    const lines = this.isLooped
      ? ((value & MCR_RTS) !== 0 ? MSR_CTS : 0) | ((value & MCR_DTR) !== 0 ? MSR_DSR : 0) |
        ((value & MCR_OUT1) !== 0 ? MSR_RI : 0) | ((value & MCR_OUT2) !== 0 ? MSR_DCD : 0)
      : CONNECTED
    const changed = this.msr ^ lines
    // The ring indicator tells only of its falling edge.
    const ringEnded = this.msr & ~lines & MSR_RI
    const deltas = (changed & (MSR_CTS | MSR_DSR | MSR_DCD) | ringEnded) >>> 4
    this.msr = lines | this.msr & MSR_DELTAS | deltas
    this.refill()
    this.update()
  }

  private transmit(byte: number): void {
    // The holding register is full for no time at all, but the pin has to show that it was.
    this.isTransmitterEmptyPending = false
    this.update()
    if (this.isLooped) this.loop(byte)
    else this.wires.transmit(byte)
    this.isTransmitterEmptyPending = true
    this.update()
  }

  private loop(byte: number): void {
    if (this.held < this.capacity) return this.push(byte)
    this.overrun = LSR_OVERRUN
    // A full FIFO keeps what it has; a full buffer is overwritten.
    if (!this.isFifoOn) this.fifo[this.head] = byte
  }

  private push(byte: number): void {
    this.fifo[(this.head + this.held) % FIFO_BYTES] = byte
    this.held++
  }

  private refill(): void {
    if (this.isLooped) return
    while (this.backlogLength > 0 && this.held < this.capacity) {
      const chunk = this.backlog[0]!
      this.push(chunk[this.backlogHead]!)
      this.backlogHead++
      this.backlogLength--
      if (this.backlogHead === chunk.length) {
        this.backlog.shift()
        this.backlogHead = 0
      }
    }
  }

  private source(): number {
    const ier = this.ier
    if ((ier & IER_LINE_STATUS) !== 0 && this.overrun !== 0) return SOURCE_LINE_STATUS
    if ((ier & IER_RECEIVED) !== 0 && this.held > 0) {
      if (this.held >= this.trigger) return SOURCE_RECEIVED
      if (this.hasTimedOut) return SOURCE_TIMEOUT
    }
    if ((ier & IER_TRANSMITTER_EMPTY) !== 0 && this.isTransmitterEmptyPending) return SOURCE_TRANSMITTER_EMPTY
    if ((ier & IER_MODEM_STATUS) !== 0 && (this.msr & MSR_DELTAS) !== 0) return SOURCE_MODEM_STATUS
    return SOURCE_NONE
  }

  private update(): void {
    const isInterrupting = this.source() !== SOURCE_NONE
    if (isInterrupting === this.isInterrupting) return
    this.isInterrupting = isInterrupting
    this.wires.interrupt(isInterrupting)
  }
}
