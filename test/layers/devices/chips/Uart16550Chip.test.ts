import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { FIFO_BYTES, Uart16550Chip } from "../../../../src/layers/devices/chips/Uart16550Chip.ts"

const DATA = 0
const IER = 1
const IIR = 2
const FCR = 2
const LCR = 3
const MCR = 4
const LSR = 5
const MSR = 6
const SCR = 7

const NO_INTERRUPT = 0x01

interface Wired {
  readonly chip: Uart16550Chip
  readonly sent: Array<number>
  /** Levels of the interrupt pin, oldest first; low at first. */
  readonly levels: Array<boolean>
  readonly isHigh: () => boolean
}

const wired = (): Wired => {
  const sent: Array<number> = []
  const levels: Array<boolean> = []
  const chip = new Uart16550Chip({
    transmit: (byte) => sent.push(byte),
    interrupt: (high) => {
      assert.notStrictEqual(levels.at(-1) ?? false, high)
      levels.push(high)
    }
  })
  return { chip, sent, levels, isHigh: () => levels.at(-1) ?? false }
}

const bytes = (length: number, first = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => first + i & 0xff)

const Byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
const Offset = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 7 }))

const Step = Schema.TaggedUnion({
  Read: { offset: Offset },
  Write: { offset: Offset, value: Byte },
  Receive: { bytes: Schema.Array(Byte) }
})

const steps = Arbitrary.array(Arbitrary.schema(Step), { maxLength: 60 })

describe("Uart16550Chip", () => {
  it("is as the data sheet says after a reset", () => {
    const { chip } = wired()
    assert.deepStrictEqual(
      [IER, IIR, LCR, MCR, LSR, MSR].map((offset) => chip.read(offset)),
      [0, NO_INTERRUPT, 0, 0, 0x60, 0xb0]
    )
  })

  it("has the divisor under the data registers while DLAB is set", () => {
    const { chip, sent } = wired()
    chip.write(IER, 0x05)
    chip.write(LCR, 0x83)
    chip.write(DATA, 0x34)
    chip.write(IER, 0x12)
    assert.deepStrictEqual([chip.read(DATA), chip.read(IER)], [0x34, 0x12])
    chip.write(LCR, 0x03)
    assert.strictEqual(chip.read(IER), 0x05)
    assert.deepStrictEqual(sent, [])
  })

  it("keeps only the bits that exist", () => {
    const { chip } = wired()
    for (const offset of [IER, LCR, MCR, SCR]) chip.write(offset, 0xff)
    chip.write(LCR, 0x7f)
    assert.deepStrictEqual([IER, LCR, MCR, SCR].map((offset) => chip.read(offset)), [0x0f, 0x7f, 0x1f, 0xff])
    chip.write(LSR, 0xff)
    assert.strictEqual(chip.read(LSR), 0x60)
  })

  it("holds one byte without FIFOs, and interrupts anew for each", () => {
    const { chip, levels } = wired()
    chip.write(IER, 0x01)
    chip.receive(bytes(3))
    assert.strictEqual(chip.read(IIR), 0x04)
    const read = [chip.read(DATA), chip.read(DATA), chip.read(DATA)]
    assert.deepStrictEqual(read, [1, 2, 3])
    assert.deepStrictEqual(levels, [true, false, true, false, true, false])
    assert.strictEqual(chip.read(LSR), 0x60)
  })

  for (const [level, fcr] of [[1, 0x01], [4, 0x41], [8, 0x81], [14, 0xc1]] as const) {
    it(`tells data from a timeout by the trigger level of ${level}`, () => {
      const { chip } = wired()
      chip.write(FCR, fcr)
      chip.write(IER, 0x01)
      for (let held = 1; held <= FIFO_BYTES; held++) {
        chip.receive(bytes(1))
        assert.strictEqual(chip.read(IIR), held >= level ? 0xc4 : 0xcc, `${held} bytes`)
      }
    })
  }

  it("ends a character timeout with each byte taken, so that an edge tells of the next", () => {
    const { chip, levels } = wired()
    chip.write(FCR, 0xc1)
    chip.write(IER, 0x01)
    chip.receive(bytes(3))
    for (let i = 0; i < 3; i++) chip.read(DATA)
    assert.deepStrictEqual(levels, [true, false, true, false, true, false])
  })

  it("empties the FIFO when asked, and when FIFOs are switched", () => {
    const { chip } = wired()
    chip.write(FCR, 0x01)
    chip.receive(bytes(5))
    chip.write(FCR, 0x03)
    assert.strictEqual(chip.receivedBytes, 0)
    chip.receive(bytes(5))
    // Without the enable bit no other bit counts, but the change does.
    chip.write(FCR, 0xc0)
    assert.strictEqual(chip.receivedBytes, 0)
    assert.strictEqual(chip.read(IIR), NO_INTERRUPT)
  })

  it("drops from the FIFO what the guest empties, not what waits on the line", () => {
    const { chip } = wired()
    chip.write(FCR, 0x01)
    chip.receive(bytes(FIFO_BYTES + 2))
    chip.write(FCR, 0x03)
    assert.deepStrictEqual([chip.read(DATA), chip.read(DATA), chip.read(LSR)], [17, 18, 0x60])
  })

  it("raises THRE when it is enabled, and again after each write; reading it from the IIR ends it", () => {
    const { chip, isHigh, levels, sent } = wired()
    chip.write(IER, 0x02)
    assert.strictEqual(isHigh(), true)
    assert.deepStrictEqual([chip.read(IIR), chip.read(IIR)], [0x02, NO_INTERRUPT])
    assert.strictEqual(isHigh(), false)
    chip.write(DATA, 0x41)
    assert.strictEqual(chip.read(IIR), 0x02)
    levels.length = 0
    chip.write(DATA, 0x42)
    chip.write(DATA, 0x43)
    assert.deepStrictEqual(levels, [true, false, true])
    assert.deepStrictEqual(sent, [0x41, 0x42, 0x43])
    // Writing the same enable again is no new event.
    assert.strictEqual(chip.read(IIR), 0x02)
    chip.write(IER, 0x02)
    assert.strictEqual(chip.read(IIR), NO_INTERRUPT)
    // As Linux's test for lazy chips expects: off and on again is one.
    chip.write(IER, 0x00)
    chip.write(IER, 0x02)
    assert.strictEqual(chip.read(IIR), 0x02)
  })

  it("shows the sources in order of priority, and each goes by its own register", () => {
    const { chip } = wired()
    chip.write(FCR, 0x01)
    chip.write(MCR, 0x10)
    for (let i = 0; i <= FIFO_BYTES; i++) chip.write(DATA, i)
    chip.write(MCR, 0x1f)
    chip.write(IER, 0x0f)
    assert.strictEqual(chip.read(IIR), 0xc6)
    assert.strictEqual(chip.read(LSR), 0x63)
    assert.strictEqual(chip.read(LSR), 0x61)
    assert.strictEqual(chip.read(IIR), 0xc4)
    for (let i = 0; i < FIFO_BYTES; i++) chip.read(DATA)
    assert.strictEqual(chip.read(IIR), 0xc2)
    assert.strictEqual(chip.read(IIR), 0xc0)
    chip.read(MSR)
    assert.strictEqual(chip.read(IIR), 0xc1)
  })

  it("wires modem outputs to inputs in loopback, and tells what changed", () => {
    const { chip } = wired()
    chip.write(MCR, 0x10 | 0x0a)
    assert.strictEqual(chip.read(MSR) & 0xf0, 0x90)
    const pairs = [[0x01, 0x22], [0x02, 0x11], [0x08, 0x88]] as const
    for (const [output, status] of pairs) {
      chip.write(MCR, 0x10)
      chip.read(MSR)
      chip.write(MCR, 0x10 | output)
      assert.strictEqual(chip.read(MSR), status)
      assert.strictEqual(chip.read(MSR), status & 0xf0)
    }
    // RI has no delta when it begins, only when it ends.
    chip.write(MCR, 0x10)
    chip.read(MSR)
    chip.write(MCR, 0x14)
    assert.strictEqual(chip.read(MSR), 0x40)
    chip.write(MCR, 0x10)
    assert.strictEqual(chip.read(MSR), 0x04)
  })

  it("keeps 16 of 256 bytes in loopback, by which Linux sizes its FIFO, and sends none of them", () => {
    const { chip, sent } = wired()
    chip.write(FCR, 0x07)
    chip.write(MCR, 0x10)
    for (let i = 0; i < 256; i++) chip.write(DATA, i)
    assert.strictEqual(chip.read(LSR), 0x63)
    const kept: Array<number> = []
    while ((chip.read(LSR) & 0x01) !== 0) kept.push(chip.read(DATA))
    assert.deepStrictEqual(kept, [...bytes(FIFO_BYTES, 0)])
    assert.deepStrictEqual(sent, [])
  })

  it("overwrites its only byte in loopback without FIFOs", () => {
    const { chip } = wired()
    chip.write(MCR, 0x10)
    chip.write(DATA, 1)
    chip.write(DATA, 2)
    assert.deepStrictEqual([chip.read(LSR), chip.read(DATA), chip.read(LSR)], [0x63, 2, 0x60])
  })

  it("leaves what arrives in loopback on the line", () => {
    const { chip } = wired()
    chip.write(FCR, 0x01)
    chip.write(MCR, 0x10)
    chip.receive(bytes(2))
    assert.strictEqual(chip.read(LSR), 0x60)
    assert.strictEqual(chip.backlogBytes, 2)
    chip.write(MCR, 0x00)
    assert.deepStrictEqual([chip.read(DATA), chip.read(DATA)], [1, 2])
  })

  it("forgets its registers at a reset, but not what waits on the line", () => {
    const { chip, isHigh } = wired()
    chip.write(FCR, 0x01)
    chip.write(IER, 0x0f)
    chip.write(MCR, 0x0b)
    chip.receive(bytes(20))
    chip.reset()
    assert.strictEqual(isHigh(), false)
    assert.deepStrictEqual([IER, IIR, LCR, MCR].map((offset) => chip.read(offset)), [0, NO_INTERRUPT, 0, 0])
    assert.deepStrictEqual([chip.read(DATA), chip.read(DATA)], [17, 18])
  })

  it("does not notice that the sender writes to its buffer again", () => {
    const { chip } = wired()
    const buffer = bytes(20)
    chip.receive(buffer)
    buffer.fill(0)
    assert.deepStrictEqual(Array.from({ length: 20 }, () => chip.read(DATA)), [...bytes(20)])
  })

  it.prop(
    "gives all that arrives, in order, whatever the pieces",
    [Schema.Array(Schema.Array(Byte)), Schema.Boolean],
    ([pieces, isFifoOn]) => {
      const { chip } = wired()
      chip.write(FCR, isFifoOn ? 0x01 : 0x00)
      const read: Array<number> = []
      for (const piece of pieces) {
        chip.receive(Uint8Array.from(piece))
        assert.isAtMost(chip.receivedBytes, isFifoOn ? FIFO_BYTES : 1)
        // Some at once, the rest later.
        for (let i = 0; i < piece.length / 2; i++) read.push(chip.read(DATA))
      }
      while ((chip.read(LSR) & 0x01) !== 0) read.push(chip.read(DATA))
      assert.deepStrictEqual(read, pieces.flat())
    }
  )

  it.prop("interrupts exactly while the IIR names a source, and never loses or leaks", [steps], ([commands]) => {
    const { chip, isHigh } = wired()
    for (const command of commands) {
      switch (command._tag) {
        case "Read": {
          const before = isHigh()
          const value = chip.read(command.offset)
          assert.isTrue(value >= 0 && value <= 0xff)
          if (command.offset === IIR) assert.strictEqual((value & NO_INTERRUPT) === 0, before)
          break
        }
        case "Write":
          chip.write(command.offset, command.value)
          break
        case "Receive":
          chip.receive(Uint8Array.from(command.bytes))
          break
      }
      assert.isAtMost(chip.receivedBytes, FIFO_BYTES)
      // Bytes wait on the line only while the receiver is full, or disconnected by loopback.
      const isLooped = (chip.read(MCR) & 0x10) !== 0
      if (!isLooped && chip.backlogBytes > 0) assert.isAtLeast(chip.receivedBytes, 1)
    }
  })

  it.prop("shows the highest priority that is enabled and there", [Byte, Byte], ([enables, flags]) => {
    const { chip } = wired()
    // The conditions, each made by itself: overrun, data, empty transmitter, modem change.
    chip.write(FCR, 0x01)
    const overrun = (flags & 1) !== 0
    const data = overrun || (flags & 2) !== 0
    chip.write(MCR, 0x10)
    for (let i = 0; i < (overrun ? 17 : data ? 1 : 0); i++) chip.write(DATA, i)
    if ((flags & 8) === 0) chip.read(MSR)
    chip.write(IER, enables)
    const expected = (enables & 4) !== 0 && overrun
      ? 0xc6
      : (enables & 1) !== 0 && data
      ? 0xc4
      : (enables & 2) !== 0
      ? 0xc2
      : (enables & 8) !== 0 && (flags & 8) !== 0
      ? 0xc0
      : 0xc1
    assert.strictEqual(chip.read(IIR), expected)
  })
})
