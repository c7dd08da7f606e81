import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Rtc146818Chip } from "../../../../src/layers/devices/chips/Rtc146818Chip.ts"

const SECOND = 1_000_000_000
const START = Date.UTC(2026, 0, 2, 3, 4, 5) / 1000

const A = 0x0a
const B = 0x0b
const C = 0x0c
const D = 0x0d
const CENTURY = 0x32

const B_SET = 0x80
const B_PERIODIC = 0x40
const B_ALARM = 0x20
const B_UPDATE = 0x10
const B_BINARY = 0x04
const B_24_HOURS = 0x02

const clock = (seconds = START, memoryBytes = 64 << 20) => new Rtc146818Chip({ seconds, since: 0, now: 0, memoryBytes })

const read = (chip: Rtc146818Chip, index: number, now: number): number => {
  chip.write(0, index, now)
  return chip.read(1, now)
}

const write = (chip: Rtc146818Chip, index: number, value: number, now: number): void => {
  chip.write(0, index, now)
  chip.write(1, value, now)
}

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** Seconds since 1970 of any time of the years 1970 to 9998, so that what comes later still has four digits. */
const Time = int(0, Date.UTC(9998, 11, 31, 23, 59, 59) / 1000)

const bcd = (value: number): number => Number.parseInt(String(value), 16)

/** The time as a driver reads it: seven registers and the century. */
const fields = (chip: Rtc146818Chip, now: number): Array<number> =>
  [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CENTURY].map((index) => read(chip, index, now))

const expectedFields = (seconds: number, registerB: number): Array<number> => {
  const date = new Date(seconds * 1000)
  const encode = (registerB & B_BINARY) === 0 ? bcd : (value: number) => value
  const hour = date.getUTCHours()
  const is24 = (registerB & B_24_HOURS) !== 0
  return [
    encode(date.getUTCSeconds()),
    encode(date.getUTCMinutes()),
    is24 ? encode(hour) : encode(hour % 12 === 0 ? 12 : hour % 12) | (hour < 12 ? 0 : 0x80),
    encode(date.getUTCDay() + 1),
    encode(date.getUTCDate()),
    encode(date.getUTCMonth() + 1),
    encode(date.getUTCFullYear() % 100),
    encode(Math.floor(date.getUTCFullYear() / 100))
  ]
}

describe("Rtc146818Chip", () => {
  it("is as firmware leaves it: 24 hours, BCD, 1024 Hz selected, valid", () => {
    const chip = clock()
    assert.deepStrictEqual([A, B, C, D].map((index) => read(chip, index, 0)), [0x26, 0x02, 0, 0x80])
    assert.deepStrictEqual(fields(chip, 0), [0x05, 0x04, 0x03, 6, 0x02, 0x01, 0x26, 0x20])
  })

  it.prop(
    "shows any time, in either coding and either count of hours, and moves on with time",
    [Time, int(0, 3), int(0, 200_000)],
    ([start, format, later]) => {
      const chip = clock(start)
      const registerB = format << 1
      write(chip, B, registerB, 0)
      assert.deepStrictEqual(fields(chip, 0), expectedFields(start, registerB))
      const now = later * SECOND + 123
      assert.deepStrictEqual(fields(chip, now), expectedFields(start + later, registerB))
      assert.strictEqual(chip.shownMillis(now), (start + later) * 1000)
    }
  )

  it.prop(
    "takes any time that a driver sets, and goes on from there",
    [Time, Time, int(0, 3), int(0, 100_000)],
    ([start, wanted, format, later]) => {
      const chip = clock(start)
      const registerB = format << 1
      write(chip, B, B_SET | registerB, 10)
      const values = expectedFields(wanted, registerB)
      const indices = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CENTURY]
      indices.forEach((index, i) => write(chip, index, values[i]!, 20))
      // Stopped, it shows what was set for as long as it takes.
      assert.deepStrictEqual(fields(chip, 5 * SECOND), values)
      write(chip, B, registerB, 5 * SECOND)
      assert.deepStrictEqual(fields(chip, (5 + later) * SECOND), expectedFields(wanted + later, registerB))
    }
  )

  it("can be set field by field while it runs, through dates that do not exist", () => {
    const chip = clock(Date.UTC(2026, 1, 10) / 1000)
    write(chip, 0x07, 0x31, 0)
    assert.strictEqual(read(chip, 0x07, 0), 0x31)
    write(chip, 0x08, 0x03, 0)
    assert.strictEqual(chip.shownMillis(SECOND), Date.UTC(2026, 2, 31, 0, 0, 1))
  })

  it("announces an update 244 us before it, and none while it is being set", () => {
    const chip = clock()
    const announced = (now: number) => (read(chip, A, now) & 0x80) !== 0
    assert.deepStrictEqual([0, SECOND - 244_001, SECOND - 244_000, SECOND - 1].map(announced), [
      false,
      false,
      true,
      true
    ])
    assert.deepStrictEqual([announced(SECOND), read(chip, 0, SECOND)], [false, 0x06])
    write(chip, B, B_SET | B_24_HOURS, SECOND)
    assert.strictEqual(announced(2 * SECOND - 1), false)
  })

  it("updates half a second after its divider was released, as Linux sets it", () => {
    const chip = clock()
    write(chip, A, 0x76, SECOND / 10)
    assert.strictEqual(read(chip, 0, 100 * SECOND), 0x05)
    write(chip, A, 0x26, 100 * SECOND)
    assert.strictEqual(read(chip, 0, 100.5 * SECOND - 1), 0x05)
    assert.strictEqual(read(chip, 0, 100.5 * SECOND), 0x06)
    assert.strictEqual(read(chip, 0, 101.5 * SECOND), 0x07)
  })

  it("has flags that tell what happened, interrupt or not, and go when read", () => {
    const chip = clock()
    assert.strictEqual(read(chip, C, 1000), 0)
    assert.strictEqual(read(chip, C, SECOND / 1024 + 1), 0x40)
    assert.strictEqual(read(chip, C, SECOND), 0x50)
    assert.strictEqual(read(chip, C, SECOND), 0)
    assert.strictEqual(chip.interrupt, false)
    assert.strictEqual(chip.nextInterrupt(SECOND), Infinity)
  })

  it("interrupts for updates, once per acknowledgement", () => {
    const chip = clock()
    write(chip, B, B_UPDATE | B_24_HOURS, 0)
    assert.strictEqual(chip.nextInterrupt(0), SECOND)
    chip.settle(SECOND)
    assert.strictEqual(chip.interrupt, true)
    assert.strictEqual(chip.nextInterrupt(SECOND), Infinity)
    assert.strictEqual(read(chip, C, 3 * SECOND) & 0x90, 0x90)
    assert.strictEqual(chip.interrupt, false)
    assert.strictEqual(chip.nextInterrupt(3 * SECOND), 4 * SECOND)
  })

  it("stops the update interrupt when it is being set", () => {
    const chip = clock()
    write(chip, B, B_SET | B_UPDATE | B_24_HOURS, 0)
    assert.strictEqual(read(chip, B, 0), B_SET | B_24_HOURS)
    assert.strictEqual(chip.nextInterrupt(0), Infinity)
  })

  const rates = [[1, 256], [2, 128], [3, 8192], [6, 1024], [13, 8], [15, 2]] as const
  for (const [rate, hertz] of rates) {
    it(`interrupts ${hertz} times a second at rate ${rate}`, () => {
      const chip = clock()
      write(chip, A, 0x20 | rate, 0)
      write(chip, B, B_PERIODIC | B_24_HOURS, 0)
      let now = 0
      let interrupts = 0
      while ((now = chip.nextInterrupt(now)) <= 3 * SECOND) {
        read(chip, C, now)
        interrupts++
      }
      assert.strictEqual(interrupts, 3 * hertz)
    })
  }

  it("has no periodic interrupt at rate 0", () => {
    const chip = clock()
    write(chip, A, 0x20, 0)
    write(chip, B, B_PERIODIC, 0)
    assert.strictEqual(chip.nextInterrupt(0), Infinity)
    assert.strictEqual(read(chip, C, 10 * SECOND) & 0x40, 0)
  })

  it.prop(
    "rings an alarm at the first time that matches",
    [Time, int(0, 60), int(0, 60), int(0, 24), int(0, 3)],
    ([start, second, minute, hour, format]) => {
      // The value past the last of each stands for "any".
      const chip = clock(start)
      const registerB = format << 1
      write(chip, B, registerB, 0)
      const alarmOf = (value: number, any: number, index: number) => value === any ? 0xc0 : expectedAlarm(value, index)
      const expectedAlarm = (value: number, index: number) =>
        expectedFields(index === 0 ? value : index === 1 ? value * 60 : value * 3600, registerB)[index]!
      write(chip, 0x01, alarmOf(second, 60, 0), 0)
      write(chip, 0x03, alarmOf(minute, 60, 1), 0)
      write(chip, 0x05, alarmOf(hour, 24, 2), 0)
      write(chip, B, registerB | B_ALARM, 0)
      let at = start + 1
      const matches = () =>
        (second === 60 || at % 60 === second) && (minute === 60 || Math.floor(at / 60) % 60 === minute) &&
        (hour === 24 || Math.floor(at / 3600) % 24 === hour)
      while (!matches()) at++
      assert.strictEqual(chip.nextInterrupt(0), (at - start) * SECOND)
      chip.settle((at - start) * SECOND - 1)
      assert.strictEqual(chip.interrupt, false)
      chip.settle((at - start) * SECOND)
      assert.strictEqual(chip.interrupt, true)
      assert.strictEqual(read(chip, C, (at - start) * SECOND) & 0xa0, 0xa0)
    },
    { arbitrary: { runs: 60 } }
  )

  it("never rings an alarm at a time that does not exist", () => {
    const chip = clock()
    write(chip, 0x01, 0x75, 0)
    write(chip, B, B_ALARM | B_24_HOURS, 0)
    assert.strictEqual(chip.nextInterrupt(0), Infinity)
    chip.settle(200_000 * SECOND)
    assert.strictEqual(chip.interrupt, false)
  })

  it("keeps time and memory over a reset, and no interrupt", () => {
    const chip = clock()
    write(chip, 0x40, 0xab, 0)
    write(chip, B, B_UPDATE | B_24_HOURS, 0)
    chip.settle(SECOND)
    chip.reset(SECOND)
    assert.strictEqual(chip.interrupt, false)
    assert.strictEqual(read(chip, B, SECOND), B_24_HOURS)
    assert.strictEqual(read(chip, 0x40, SECOND), 0xab)
    assert.strictEqual(chip.shownMillis(2 * SECOND), (START + 2) * 1000)
  })

  it("drops the index's top bit, and does not show the index", () => {
    const chip = clock()
    chip.write(0, 0x80 | D, 0)
    assert.deepStrictEqual([chip.read(0, 0), chip.read(1, 0)], [0xff, 0x80])
  })

  const sizes: ReadonlyArray<readonly [bytes: number, base: number, extended: number, above16M: number]> = [
    [512 << 10, 512, 0, 0],
    [1 << 20, 640, 0, 0],
    [16 << 20, 640, 15 * 1024, 0],
    [64 << 20, 640, 63 * 1024, 48 * 16],
    [1024 << 20, 640, 0xffff, 1008 * 16],
    [2 ** 40, 640, 0xffff, 0xffff]
  ]
  for (const [bytes, base, extended, above16M] of sizes) {
    it(`describes ${bytes / 1024} KiB of memory`, () => {
      const chip = clock(START, bytes)
      const word = (index: number) => read(chip, index, 0) | read(chip, index + 1, 0) << 8
      assert.deepStrictEqual([0x15, 0x17, 0x30, 0x34].map(word), [base, extended, extended, above16M])
    })
  }
})
