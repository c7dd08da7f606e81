import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schema, Scope } from "effect"
import { nanosAt, PIT_HZ, pulsesAt } from "../../../src/layers/devices/chips/Pit8254Chip.ts"
import * as Pit8254 from "../../../src/layers/devices/Pit8254.ts"
import { type FakeMachine, fakeMachine, twoMachines } from "./FakeMachine.ts"

const SECOND = 1_000_000_000
const CONTROL = 0x43
const SYSTEM_CONTROL = 0x61

const program = (guest: FakeMachine, counter: number, mode: number, count: number) => {
  guest.write(CONTROL, counter << 6 | 0x30 | mode << 1)
  guest.write(0x40 + counter, count & 0xff)
  guest.write(0x40 + counter, count >>> 8 & 0xff)
}

const read16 = (guest: FakeMachine, counter: number): number => {
  const low = guest.read(0x40 + counter)
  return low | guest.read(0x40 + counter) << 8
}

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

describe("Pit8254", () => {
  it.prop("converts between pulses and nanoseconds without drift", [int(0, 10 ** 13)], ([pulses]) => {
    assert.strictEqual(pulsesAt(nanosAt(pulses)), pulses)
    if (pulses > 0) assert.strictEqual(pulsesAt(nanosAt(pulses) - 1), pulses - 1)
  })

  it.effect("interrupts as often as its count says, for a minute without drift", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      guest.advance(12_345)
      const start = pulsesAt(guest.timeline.now)
      program(guest, 0, 2, 11_932)
      guest.advance(60 * SECOND)
      const rises = guest.lines.takeRises(0)
      assert.strictEqual(rises.length, Math.floor((60 * PIT_HZ - 1) / 11_932))
      rises.forEach((at, i) => assert.closeTo(at, nanosAt(start + 1 + (i + 1) * 11_932), 1))
    }))

  it.effect.prop(
    "rises at each end of a period, in one jump or in many",
    [int(24, 0xffff), Schema.Literals([2, 3]), Schema.Array(int(1, 3_000_000))],
    ([count, mode, jumps]) =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        yield* guest.provide(Pit8254.make())
        program(guest, 0, mode, count)
        for (const jump of jumps) guest.advance(Math.min(jump, count * 10_000))
        const passed = Math.floor(Math.max(0, pulsesAt(guest.timeline.now) - 1) / count)
        assert.strictEqual(guest.lines.takeRises(0).length, passed)
      })
  )

  it.effect.prop(
    "counts with guest time",
    [int(2, 0xffff), Schema.Literals([0, 2, 4]), int(0, SECOND / 10)],
    ([count, mode, time]) =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        yield* guest.provide(Pit8254.make())
        program(guest, 0, mode, count)
        guest.advance(time)
        const pulses = pulsesAt(time) - 1
        const expected = pulses < 0 ? count : mode === 2 ? count - pulses % count : (count - pulses) & 0xffff
        guest.write(CONTROL, 0x00)
        guest.advance(1000)
        assert.strictEqual(read16(guest, 0), expected)
      })
  )

  it.effect("interrupts once in mode 0, and lowers the line when it is programmed again", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      program(guest, 0, 0, 1000)
      guest.advance(nanosAt(1001) - 1)
      assert.isFalse(guest.lines.isHigh(0))
      guest.advance(1)
      assert.isTrue(guest.lines.isHigh(0))
      guest.advance(SECOND)
      assert.strictEqual(guest.lines.takeRises(0).length, 1)
      program(guest, 0, 0, 1000)
      assert.isFalse(guest.lines.isHigh(0))
      guest.advance(SECOND)
      assert.strictEqual(guest.lines.takeRises(0).length, 1)
    }))

  it.effect("is a one-shot in mode 4, as Linux uses it without ticks: each count is one edge", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      guest.write(CONTROL, 0x38)
      for (const count of [0x7fff, 15, 4000]) {
        guest.write(0x40, count & 0xff)
        guest.write(0x40, count >>> 8)
        const start = pulsesAt(guest.timeline.now)
        guest.advance(SECOND / 10)
        assert.deepStrictEqual(
          guest.lines.takeRises(0).map((at) => pulsesAt(Math.ceil(at)) - start),
          [count + 2]
        )
      }
    }))

  it.effect("interrupts at most every 20 us, whatever the guest asks for", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      program(guest, 0, 2, 2)
      guest.advance(SECOND / 100)
      assert.closeTo(guest.lines.takeRises(0).length, 500, 10)
    }))

  it.effect("forgets what was programmed before", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      program(guest, 0, 2, 1000)
      guest.advance(nanosAt(500))
      program(guest, 0, 2, 5000)
      guest.advance(nanosAt(5000))
      assert.deepStrictEqual(guest.lines.takeRises(0), [])
      guest.advance(nanosAt(3))
      assert.strictEqual(guest.lines.takeRises(0).length, 1)
      // Linux stops the timer by setting mode 0 and counting nothing.
      guest.write(CONTROL, 0x30)
      guest.advance(SECOND)
      assert.deepStrictEqual(guest.lines.takeRises(0), [])
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
    }))

  it.effect("shows the gate and the output of counter 2 in port 0x61, by which Linux measures its TSC", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      guest.write(SYSTEM_CONTROL, guest.read(SYSTEM_CONTROL) & ~0x02 | 0x01)
      program(guest, 2, 0, 0xe90b)
      assert.strictEqual(guest.read(SYSTEM_CONTROL) & 0x23, 0x01)
      guest.advance(nanosAt(0xe90b + 1) - 1)
      assert.strictEqual(guest.read(SYSTEM_CONTROL) & 0x20, 0)
      guest.advance(1)
      assert.strictEqual(guest.read(SYSTEM_CONTROL) & 0x20, 0x20)
      assert.deepStrictEqual(guest.lines.takeRises(0), [])
    }))

  it.effect("counts counter 2 only while its gate is open", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const pit = yield* guest.provide(Pit8254.make())
      program(guest, 2, 0, 1000)
      guest.advance(SECOND)
      guest.write(SYSTEM_CONTROL, 0x01)
      guest.advance(nanosAt(400))
      guest.write(SYSTEM_CONTROL, 0x00)
      const [, , counter] = yield* pit.counters
      assert.deepInclude(counter, { mode: 0, gate: false, out: false })
      assert.closeTo(counter!.count, 600, 1)
      guest.advance(SECOND)
      assert.deepStrictEqual((yield* pit.counters)[2], counter)
    }))

  it.effect("toggles the refresh bit every 18 pulses", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      const bits = Array.from({ length: 6 }, (_, i) => {
        guest.timeline.advanceTo(nanosAt(i * 18))
        return guest.read(SYSTEM_CONTROL) & 0x10
      })
      assert.deepStrictEqual(bits, [0, 0x10, 0, 0x10, 0, 0x10])
    }))

  it.effect("reads back several counters at once", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Pit8254.make())
      program(guest, 0, 2, 1000)
      program(guest, 1, 3, 18)
      guest.advance(nanosAt(11))
      guest.write(CONTROL, 0xc0 | 0x06)
      guest.advance(nanosAt(5))
      assert.strictEqual(guest.read(0x40), 0x80 | 0x30 | 2 << 1)
      assert.strictEqual(read16(guest, 0), 990)
      assert.strictEqual(guest.read(0x41), 0x30 | 3 << 1)
      assert.strictEqual(read16(guest, 1), 16)
      assert.strictEqual(guest.read(CONTROL), 0xff)
    }))

  it.effect("stands still after a reset, and when it is gone", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scope = yield* Scope.make()
      yield* guest.provide(Pit8254.make()).pipe(Scope.provide(scope))
      program(guest, 0, 2, 1000)
      guest.advance(nanosAt(1500))
      yield* guest.reset
      assert.isFalse(guest.lines.isHigh(0))
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
      program(guest, 0, 2, 1000)
      guest.advance(nanosAt(1500))
      assert.isTrue(guest.lines.isHigh(0))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(guest.lines.isHigh(0))
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
    }))

  it.effect("is another device for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const [one, two] = yield* twoMachines
      const layer = Pit8254.layer()
      yield* one.provide(Layer.build(layer))
      yield* two.provide(Layer.build(layer))
      program(one, 0, 2, 1000)
      one.advance(nanosAt(1500))
      two.advance(nanosAt(1500))
      assert.strictEqual(one.lines.takeRises(0).length, 1)
      assert.strictEqual(two.lines.takeRises(0).length, 0)
    }))
})
