import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Pic8259 } from "../../../src/layers/simulated/Pic8259.ts"

const MASTER = 0x20
const SLAVE = 0xa0

/** A pair with vectors from 0x20 and 0x28 and these masks, as a PC's firmware leaves it. */
const programmed = (masks: readonly [master: number, slave: number] = [0, 0], icw4 = 1): Pic8259 => {
  const pic = new Pic8259()
  for (const [port, base] of [[MASTER, 0x20], [SLAVE, 0x28]] as const) {
    pic.write(port, 0x11)
    pic.write(port + 1, base)
    pic.write(port + 1, port === MASTER ? 4 : 2)
    pic.write(port + 1, icw4)
  }
  pic.write(MASTER + 1, masks[0])
  pic.write(SLAVE + 1, masks[1])
  return pic
}

const eoi = (pic: Pic8259, vector: number): void => {
  if (vector >= 0x28) pic.write(SLAVE, 0x20)
  pic.write(MASTER, 0x20)
}

const inServiceOf = (pic: Pic8259, port: number): number => {
  pic.write(port, 0x0b)
  return pic.read(port)
}

const requestsOf = (pic: Pic8259, port: number): number => {
  pic.write(port, 0x0a)
  return pic.read(port)
}

const Line = Schema.Literals([0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
/** Lines of a pair from most to least urgent: the slave's eight stand where its line 2 is. */
const priority: ReadonlyArray<typeof Line.Type> = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7]
const vectorOf = (line: number): number => 0x20 + line

describe("Pic8259", () => {
  it("is masked wholly before it is programmed", () => {
    const pic = new Pic8259()
    pic.setLine(0, true)
    assert.isFalse(pic.isPending)
    assert.strictEqual(pic.acknowledge(), -1)
  })

  it.prop("lines that rose are served by priority, each once, after the end of the one before", [
    Schema.Array(Line)
  ], ([lines]) => {
    const pic = programmed()
    for (const line of lines) pic.setLine(line, true)
    const served: Array<number> = []
    while (pic.isPending) {
      const vector = pic.acknowledge()
      served.push(vector)
      eoi(pic, vector)
    }
    assert.deepStrictEqual(served, priority.filter((line) => lines.includes(line)).map(vectorOf))
  })

  it.prop("while a line is served only more urgent ones come through", [Line, Line], ([served, other]) => {
    if (served === other) return
    const pic = programmed()
    pic.setLine(served, true)
    assert.strictEqual(pic.acknowledge(), vectorOf(served))
    pic.setLine(other, true)
    // Both behind the slave: its own priority decides, but the master holds back its line 2 until its EOI.
    const isHeldBack = served >= 8 && other >= 8
    const isMoreUrgent = priority.indexOf(other) < priority.indexOf(served)
    assert.strictEqual(pic.isPending, isMoreUrgent && !isHeldBack)
    eoi(pic, vectorOf(served))
    assert.isTrue(pic.isPending)
    assert.strictEqual(pic.acknowledge(), vectorOf(other))
  })

  it.prop("a masked line waits until it is unmasked", [Line], ([line]) => {
    const pic = programmed(line < 8 ? [1 << line, 0] : [0, 1 << line - 8])
    pic.setLine(line, true)
    assert.isFalse(pic.isPending)
    pic.write(line < 8 ? MASTER + 1 : SLAVE + 1, 0)
    assert.strictEqual(pic.acknowledge(), vectorOf(line))
  })

  it("masking the cascade line masks the whole slave", () => {
    const pic = programmed([0b100, 0])
    pic.setLine(8, true)
    assert.isFalse(pic.isPending)
    pic.write(MASTER + 1, 0)
    assert.strictEqual(pic.acknowledge(), 0x28)
  })

  it("a line that stays high is served once; a new edge is a new interrupt", () => {
    const pic = programmed()
    pic.setLine(4, true)
    pic.setLine(4, true)
    eoi(pic, pic.acknowledge())
    assert.isFalse(pic.isPending)
    pic.setLine(4, false)
    pic.setLine(4, true)
    assert.strictEqual(pic.acknowledge(), 0x24)
  })

  it("a pulse that ended before it was served is not lost", () => {
    const pic = programmed()
    pic.setLine(1, true)
    pic.setLine(1, false)
    assert.strictEqual(pic.acknowledge(), 0x21)
  })

  it("the registers show what is requested, served and masked", () => {
    const pic = programmed([0x80, 0x40])
    pic.setLine(3, true)
    pic.setLine(5, true)
    assert.strictEqual(requestsOf(pic, MASTER), 0b10_1000)
    pic.acknowledge()
    assert.strictEqual(requestsOf(pic, MASTER), 0b10_0000)
    assert.strictEqual(inServiceOf(pic, MASTER), 0b1000)
    assert.strictEqual(pic.read(MASTER + 1), 0x80)
    assert.strictEqual(pic.read(SLAVE + 1), 0x40)
    pic.setLine(9, true)
    // Line 9 is behind the slave, more urgent than line 3.
    assert.strictEqual(pic.acknowledge(), 0x29)
    assert.strictEqual(inServiceOf(pic, MASTER), 0b1100)
    assert.strictEqual(inServiceOf(pic, SLAVE), 0b10)
  })

  it("a specific EOI ends the line it names, a plain one the most urgent", () => {
    const pic = programmed()
    pic.setLine(6, true)
    pic.acknowledge()
    pic.setLine(1, true)
    pic.acknowledge()
    assert.strictEqual(inServiceOf(pic, MASTER), 0b100_0010)
    pic.write(MASTER, 0x60 | 6)
    assert.strictEqual(inServiceOf(pic, MASTER), 0b10)
    pic.write(MASTER, 0x20)
    assert.strictEqual(inServiceOf(pic, MASTER), 0)
    pic.write(MASTER, 0x20)
    assert.strictEqual(inServiceOf(pic, MASTER), 0, "an EOI with nothing to end changes nothing")
  })

  it("with automatic EOI nothing stays in service", () => {
    const pic = programmed([0, 0], 3)
    pic.setLine(2 + 1, true)
    assert.strictEqual(pic.acknowledge(), 0x23)
    assert.strictEqual(inServiceOf(pic, MASTER), 0)
  })

  it("reset forgets everything", () => {
    const pic = programmed()
    pic.setLine(0, true)
    pic.reset()
    assert.isFalse(pic.isPending)
    assert.strictEqual(pic.read(MASTER + 1), 0xff)
  })

  it("line 2 is the cascade and no device's", () => {
    const pic = programmed()
    pic.setLine(2, true)
    assert.isFalse(pic.isPending)
  })

  it.prop("it owns exactly its four ports", [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff }))], (
    [port]
  ) => {
    assert.strictEqual(Pic8259.owns(port), [0x20, 0x21, 0xa0, 0xa1].includes(port))
  }, { arbitrary: { runs: 500 } })
})
