import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as ResetControl from "../../../src/layers/devices/ResetControl.ts"
import { type FakeMachine, fakeMachine, twoMachines } from "./FakeMachine.ts"

type Accesses = ReadonlyArray<readonly [port: number, value: number]>

const run = (guest: FakeMachine, accesses: Accesses) => {
  for (const [port, value] of accesses) guest.write(port, value)
}

describe("ResetControl", () => {
  const resets: ReadonlyArray<readonly [name: string, accesses: Accesses, source: string]> = [
    ["the keyboard controller's pulse", [[0x64, 0xfe]], "the keyboard controller (port 0x64)"],
    ["the keyboard controller's output port", [[0x64, 0xd1], [0x60, 0xfe]], "the keyboard controller (port 0x64)"],
    ["fast reset", [[0x92, 0x03]], "system control port A (port 0x92)"],
    ["a hard reset of the chipset", [[0xcf9, 0x02], [0xcf9, 0x06]], "the reset control register (port 0xcf9)"],
    ["a full reset of the chipset", [[0xcf9, 0x02], [0xcf9, 0x0e]], "the reset control register (port 0xcf9)"]
  ]
  for (const [name, accesses, source] of resets) {
    it.effect(`ends the guest at ${name}`, () =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        yield* guest.provide(ResetControl.make())
        run(guest, accesses)
        assert.deepStrictEqual(guest.ends, [{ _tag: "ResetRequested", source }])
      }))
  }

  const others: ReadonlyArray<readonly [name: string, accesses: Accesses]> = [
    ["a pulse of other lines", [[0x64, 0xfd], [0x64, 0xff]]],
    ["other commands of the keyboard controller", [[0x64, 0xaa], [0x60, 0xfe], [0x64, 0xd1], [0x60, 0xdf]]],
    ["data after the output port was written", [[0x64, 0xd1], [0x60, 0xdf], [0x60, 0xfe]]],
    ["the A20 gate", [[0x92, 0x00], [0x92, 0x02]]],
    ["choosing the kind of reset", [[0xcf9, 0x02], [0xcf9, 0x0a]]]
  ]
  for (const [name, accesses] of others) {
    it.effect(`does not at ${name}`, () =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        yield* guest.provide(ResetControl.make())
        run(guest, accesses)
        assert.deepStrictEqual(guest.ends, [])
      }))
  }

  it.effect("resets when a bit rises, not while it is set, and again after a reset", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(ResetControl.make())
      run(guest, [[0x92, 0x01], [0x92, 0x03], [0xcf9, 0x06], [0xcf9, 0x0e]])
      assert.strictEqual(guest.ends.length, 2)
      yield* guest.reset
      assert.deepStrictEqual([guest.read(0x92), guest.read(0xcf9)], [0x02, 0x00])
      run(guest, [[0x92, 0x03]])
      assert.strictEqual(guest.ends.length, 3)
    }))

  it.effect("shows Linux no keyboard controller, and no reason to wait before a reboot", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(ResetControl.make())
      // i8042_flush gives up when there is something to be read after 16 bytes.
      for (let i = 0; i <= 16; i++) {
        assert.strictEqual(guest.read(0x64) & 0x01, 0x01)
        assert.strictEqual(guest.read(0x60), 0)
      }
      // kb_wait goes on at once when nothing waits to be taken.
      assert.strictEqual(guest.read(0x64) & 0x02, 0)
    }))

  it.effect("leaves PCI's address register alone", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(ResetControl.make())
      guest.write(0xcf8, 0x8000_0600, 4)
      assert.strictEqual(guest.read(0xcf8, 4), 0x8000_0600)
      assert.deepStrictEqual(guest.ends, [])
    }))

  it.effect("is another device for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const [one, two] = yield* twoMachines
      const layer = ResetControl.layer()
      yield* one.provide(Layer.build(layer))
      yield* two.provide(Layer.build(layer))
      one.write(0x92, 0x00)
      assert.deepStrictEqual([one.read(0x92), two.read(0x92)], [0x00, 0x02])
    }))
})
