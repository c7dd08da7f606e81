import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import * as DebugExit from "../../../src/layers/devices/DebugExit.ts"
import { fakeMachine, twoMachines } from "./FakeMachine.ts"

describe("DebugExit", () => {
  for (const [size, value, status] of [[1, 7, 7], [2, 0x1234, 0x34], [4, 0xffff_ff00, 0]] as const) {
    it.effect(`ends the guest with the low byte of a write of ${size} bytes`, () =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        const device = yield* guest.provide(DebugExit.make())
        guest.write(0xf4, value, size)
        assert.deepStrictEqual(guest.ends, [{ _tag: "Exited", status }])
        assert.strictEqual(yield* device.exit, status)
      }))
  }

  it.effect("lets a program wait for the exit; the first one counts", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const device = yield* guest.provide(DebugExit.make({ port: 0x501 }))
      const waiting = yield* Effect.forkChild(device.exit, { startImmediately: true })
      assert.strictEqual(guest.read(0x501, 4), 0xffff_ffff)
      guest.write(0x501, 3)
      guest.write(0x501, 4)
      assert.strictEqual(yield* Fiber.join(waiting), 3)
      assert.strictEqual(yield* device.exit, 3)
    }))

  it.effect("waits for the exit of the new life after a reset", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const device = yield* guest.provide(DebugExit.make())
      guest.write(0xf4, 1)
      yield* guest.reset
      const waiting = yield* Effect.forkChild(device.exit, { startImmediately: true })
      yield* guest.reset
      guest.write(0xf4, 2)
      assert.strictEqual(yield* Fiber.join(waiting), 2)
    }))

  it.effect("is another device for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const [one, two] = yield* twoMachines
      const layer = DebugExit.layer()
      yield* one.provide(Layer.build(layer))
      yield* two.provide(Layer.build(layer))
      one.write(0xf4, 5)
      assert.deepStrictEqual([one.ends.length, two.ends.length], [1, 0])
    }))
})
