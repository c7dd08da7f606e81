import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { Pit8254Counter } from "../../../../src/layers/devices/chips/Pit8254Counter.ts"
import { PitReference } from "./PitReference.ts"

const LOW_ONLY = 0x10
const HIGH_ONLY = 0x20
const BOTH = 0x30
const BCD = 0x01

/** A counter in `mode` whose count was written at pulse 0. */
const programmed = (mode: number, count: number, gate = true): Pit8254Counter => {
  const counter = new Pit8254Counter(gate)
  counter.control(BOTH | mode << 1, 0)
  counter.write(count & 0xff, 0)
  counter.write(count >>> 8 & 0xff, 0)
  return counter
}

const read16 = (counter: Pit8254Counter, now: number): number => counter.read(now) | counter.read(now) << 8

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Step = Schema.TaggedUnion({
  Control: { mode: int(0, 7), bcd: Schema.Boolean },
  Count: { count: int(2, 25) },
  Gate: { high: Schema.Boolean },
  Wait: { pulses: int(1, 60) }
})

const steps = Arbitrary.array(Arbitrary.schema(Step), { maxLength: 30 })

describe("Pit8254Counter", () => {
  it("mode 0: OUT rises N + 1 pulses after the count is written, and stays", () => {
    const counter = programmed(0, 4)
    assert.deepStrictEqual([1, 2, 3, 4, 5, 6].map((now) => counter.count(now)), [4, 3, 2, 1, 0, 0xffff])
    assert.deepStrictEqual([0, 4, 5, 100_000].map((now) => counter.out(now)), [false, false, true, true])
    assert.strictEqual(programmed(0, 4).nextRise(0), 5)
    assert.strictEqual(counter.nextRise(100_000), Infinity)
  })

  it("mode 0: stops at the first byte of a new count", () => {
    const counter = programmed(0, 100)
    counter.write(10, 50)
    assert.strictEqual(counter.nextRise(50), Infinity)
    assert.strictEqual(counter.out(1000), false)
    counter.write(0, 1000)
    assert.strictEqual(counter.nextRise(1000), 1011)
  })

  it("mode 2: one pulse low per period, for ever", () => {
    const counter = programmed(2, 3)
    assert.deepStrictEqual([1, 2, 3, 4, 5, 6, 7].map((now) => counter.count(now)), [3, 2, 1, 3, 2, 1, 3])
    const fresh = programmed(2, 3)
    assert.deepStrictEqual([1, 2, 3, 4, 5, 6].map((now) => fresh.out(now)), [true, true, false, true, true, false])
    const waiting = programmed(2, 3)
    assert.deepStrictEqual([0, 4, 5, 6, 7].map((now) => waiting.nextRise(now)), [4, 7, 7, 7, 10])
  })

  it("mode 3: a square wave, high for the longer half, counted down by two", () => {
    const even = programmed(3, 4)
    assert.deepStrictEqual([1, 2, 3, 4, 5].map((now) => [even.count(now), even.out(now)]), [
      [4, true],
      [2, true],
      [4, false],
      [2, false],
      [4, true]
    ])
    const odd = programmed(3, 5)
    assert.deepStrictEqual([1, 2, 3, 4, 5, 6].map((now) => [odd.count(now), odd.out(now)]), [
      [4, true],
      [2, true],
      [0, true],
      [4, false],
      [2, false],
      [4, true]
    ])
  })

  it("modes 2 and 3: a new count is used from the next (half) cycle on", () => {
    const rate = programmed(2, 10)
    rate.write(4, 5)
    rate.write(0, 5)
    assert.strictEqual(rate.nextRise(5), 11)
    assert.strictEqual(rate.nextRise(11), 15)
    const square = programmed(3, 10)
    square.write(4, 2)
    square.write(0, 2)
    // High until 6 as begun, then low for half of the new count.
    assert.strictEqual(square.nextRise(2), 8)
    assert.strictEqual(square.nextRise(8), 12)
  })

  it("modes 2 and 3: a count of 1 is illegal and never interrupts", () => {
    for (const mode of [2, 3]) {
      assert.strictEqual(programmed(mode, 1).nextRise(0), Infinity)
      assert.strictEqual(programmed(mode, 1).out(100), true)
    }
  })

  it("mode 4: one strobe, N + 1 pulses after the count is written", () => {
    const counter = programmed(4, 3)
    assert.deepStrictEqual([3, 4, 5, 6].map((now) => counter.out(now)), [true, false, true, true])
    assert.strictEqual(programmed(4, 3).nextRise(0), 5)
    assert.strictEqual(counter.nextRise(6), Infinity)
  })

  it("modes 1 and 5: start when the gate rises, and again", () => {
    const oneShot = programmed(1, 5, false)
    assert.strictEqual(oneShot.nextRise(100), Infinity)
    oneShot.setGate(true, 100)
    assert.deepStrictEqual([100, 101, 105].map((now) => oneShot.out(now)), [true, false, false])
    oneShot.setGate(false, 105)
    oneShot.setGate(true, 105)
    assert.deepStrictEqual([105, 106, 110, 111].map((now) => oneShot.out(now)), [false, false, false, true])
    const strobe = programmed(5, 5, false)
    strobe.setGate(true, 100)
    assert.strictEqual(strobe.nextRise(100), 107)
  })

  it("a count of 0 is 65,536, or 10,000 in BCD", () => {
    const binary = programmed(2, 0)
    assert.strictEqual(binary.nextRise(0), 65_537)
    assert.deepStrictEqual([1, 2].map((now) => binary.count(now)), [0, 0xffff])
    const bcd = new Pit8254Counter(true)
    bcd.control(BOTH | 2 << 1 | BCD, 0)
    bcd.write(0, 0)
    bcd.write(0, 0)
    assert.strictEqual(bcd.nextRise(0), 10_001)
    assert.deepStrictEqual([1, 2].map((now) => bcd.count(now)), [0, 0x9999])
  })

  it("takes and gives one byte where the control word says so", () => {
    const low = new Pit8254Counter(true)
    low.control(LOW_ONLY | 2 << 1, 0)
    low.write(18, 0)
    assert.strictEqual(low.nextRise(0), 19)
    assert.deepStrictEqual([low.read(1), low.read(2)], [18, 17])
    const high = new Pit8254Counter(true)
    high.control(HIGH_ONLY | 2 << 1, 0)
    high.write(0x12, 0)
    assert.strictEqual(high.nextRise(0), 0x1201)
    assert.deepStrictEqual([high.read(1), high.read(2)], [0x12, 0x11])
  })

  it("holds a latched count until it is read, whatever the time", () => {
    const counter = programmed(2, 0x1234)
    counter.latchCount(0x35)
    counter.latchCount(0x100)
    assert.strictEqual(read16(counter, 0x200), 0x1200)
    assert.strictEqual(read16(counter, 0x35), 0x1200)
    assert.strictEqual(read16(counter, 0x36), 0x11ff)
    counter.latchCount(0x40)
    counter.control(BOTH | 2 << 1, 0x41)
    counter.write(0x10, 0x41)
    counter.write(0x00, 0x41)
    assert.strictEqual(read16(counter, 0x42), 0x10)
  })

  it("gives a latched status before a latched count", () => {
    const counter = programmed(3, 10)
    counter.latchStatus(0)
    assert.strictEqual(counter.read(0), 0x80 | 0x40 | 0x30 | 3 << 1)
    counter.latchCount(8)
    counter.latchStatus(8)
    counter.latchStatus(20)
    assert.strictEqual(counter.read(20), 0x30 | 3 << 1)
    assert.strictEqual(read16(counter, 20), 6)
  })

  it("stands still until it is programmed", () => {
    const counter = new Pit8254Counter(true)
    assert.strictEqual(counter.nextRise(0), Infinity)
    assert.deepStrictEqual([counter.count(0), counter.count(1000)], [0, 0])
  })

  it.prop(
    "agrees with a counter that ticks, at every pulse",
    [steps, Schema.Boolean],
    ([commands, gate]) => {
      const counter = new Pit8254Counter(gate)
      const reference = new PitReference(gate)
      let now = 0
      let isCounting = false
      for (const command of [...commands, { _tag: "Wait", pulses: 60 } as const]) {
        switch (command._tag) {
          case "Control":
            isCounting = false
            counter.control(BOTH | command.mode << 1 | (command.bcd ? BCD : 0), now)
            reference.control(command.mode > 5 ? command.mode - 4 : command.mode, command.bcd)
            break
          case "Count": {
            const { count } = command
            const tens = Math.floor(count / 10)
            counter.write(reference.isBcd ? tens << 4 | count % 10 : count, now)
            counter.write(0, now)
            reference.write(count)
            break
          }
          case "Gate":
            counter.setGate(command.high, now)
            reference.setGate(command.high)
            break
          case "Wait": {
            let expectedRise = counter.nextRise(now)
            // A pulse settles what a command left open, such as the end of a strobe that was cut short.
            let before: boolean | undefined
            for (let i = 0; i < command.pulses; i++) {
              now++
              reference.clock()
              isCounting ||= reference.isLoaded
              const out = counter.out(now)
              assert.strictEqual(out, reference.out, `OUT at pulse ${now}`)
              if (isCounting) {
                assert.strictEqual(counter.count(now), reference.count, `count at pulse ${now}`)
              }
              if (before === false && out) assert.strictEqual(now, expectedRise, "a rise that was not foreseen")
              if (now === expectedRise) {
                assert.strictEqual(out, true, "a rise that did not come")
                expectedRise = counter.nextRise(now)
              }
              before = out
            }
            break
          }
        }
      }
    },
    { arbitrary: { runs: 1000 } }
  )
})
