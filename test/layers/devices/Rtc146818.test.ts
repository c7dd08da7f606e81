import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import * as Rtc146818 from "../../../src/layers/devices/Rtc146818.ts"
import { EPOCH_MS, type FakeMachine, fakeMachine, twoMachines } from "./FakeMachine.ts"

const SECOND = 1_000_000_000
const MILLI = 1_000_000

const read = (guest: FakeMachine, index: number): number => {
  guest.write(0x70, index)
  return guest.read(0x71)
}

const write = (guest: FakeMachine, index: number, value: number): void => {
  guest.write(0x70, index)
  guest.write(0x71, value)
}

describe("Rtc146818", () => {
  it.effect("starts at the guest's wall time, seconds beginning where its own begin", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const rtc = yield* guest.provide(Rtc146818.make())
      assert.deepStrictEqual([0x04, 0x02, 0x00].map((index) => read(guest, index)), [0x03, 0x04, 0x05])
      guest.advance(750 * MILLI - 1)
      assert.strictEqual(read(guest, 0x00), 0x05)
      guest.advance(1)
      assert.strictEqual(read(guest, 0x00), 0x06)
      assert.strictEqual(yield* rtc.shownMillis, EPOCH_MS + 750)
    }))

  it.effect("takes its time from when it is put in, not from when the machine was made", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      guest.advance(3600 * SECOND)
      const rtc = yield* guest.provide(Rtc146818.make())
      assert.strictEqual(yield* rtc.shownMillis, EPOCH_MS - 250 + 3_600_000)
    }))

  it.effect("holds its line from an interrupt to its acknowledgement, and needs no timer meanwhile", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Rtc146818.make())
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
      write(guest, 0x0b, 0x12)
      guest.advance(750 * MILLI)
      assert.isTrue(guest.lines.isHigh(8))
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
      guest.advance(5 * SECOND)
      assert.strictEqual(read(guest, 0x0c) & 0x90, 0x90)
      assert.isFalse(guest.lines.isHigh(8))
      guest.advance(SECOND)
      assert.isTrue(guest.lines.isHigh(8))
      assert.deepStrictEqual(guest.lines.takeRises(8), [750 * MILLI, 6750 * MILLI])
    }))

  it.effect("interrupts 1024 times a second for a guest that acknowledges", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Rtc146818.make())
      write(guest, 0x0b, 0x42)
      for (let i = 0; i < 2048; i++) {
        guest.timeline.advanceTo(guest.timeline.nextDeadline)
        assert.isTrue(guest.lines.isHigh(8))
        read(guest, 0x0c)
      }
      assert.closeTo(guest.timeline.now, 2 * SECOND, 2)
    }))

  it.effect("rings the alarm", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Rtc146818.make())
      write(guest, 0x05, 0x03)
      write(guest, 0x03, 0x10)
      write(guest, 0x01, 0x00)
      write(guest, 0x0b, 0x22)
      guest.advance(2 * 3600 * SECOND)
      assert.deepStrictEqual(guest.lines.takeRises(8), [(5 * 60 + 55) * SECOND - 250 * MILLI])
      assert.strictEqual(read(guest, 0x0c) & 0xa0, 0xa0)
    }))

  it.effect("turns its interrupts off at a reset, and when it is gone", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scope = yield* Scope.make()
      yield* guest.provide(Rtc146818.make()).pipe(Scope.provide(scope))
      write(guest, 0x0b, 0x12)
      guest.advance(SECOND)
      yield* guest.reset
      assert.isFalse(guest.lines.isHigh(8))
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
      write(guest, 0x0b, 0x12)
      guest.advance(SECOND)
      assert.isTrue(guest.lines.isHigh(8))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(guest.lines.isHigh(8))
    }))

  it.effect("tells firmware how much memory the machine has", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine({ memoryBytes: 128 << 20 })
      yield* guest.provide(Rtc146818.make())
      assert.strictEqual(read(guest, 0x34) | read(guest, 0x35) << 8, 112 * 16)
    }))

  it.effect("is another device for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const [one, two] = yield* twoMachines
      const layer = Rtc146818.layer()
      yield* one.provide(Layer.build(layer))
      yield* two.provide(Layer.build(layer))
      write(one, 0x40, 1)
      assert.deepStrictEqual([read(one, 0x40), read(two, 0x40)], [1, 0])
    }))
})
