/** What a device is asked to be and cannot: a typed error with the device's name, never a defect, and nothing is left. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as DebugExit from "../../../src/layers/devices/DebugExit.ts"
import * as MmioScratch from "../../../src/layers/devices/MmioScratch.ts"
import * as Pit8254 from "../../../src/layers/devices/Pit8254.ts"
import * as StandardPc from "../../../src/layers/devices/StandardPc.ts"
import * as Uart16550 from "../../../src/layers/devices/Uart16550.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"

const onSimulated = Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer)), { local: true })

describe("options of devices", () => {
  it.effect("that are out of range are refused in words", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine.VirtualMachine
      const vm = yield* machines.create({ memoryBytes: 1 << 16 })
      const refused = <A, E extends { readonly message: string }, R>(device: Effect.Effect<A, E, R>) =>
        Effect.map(Effect.flip(vm.attach(device)), (error) => error.message)

      const range = /^client "[a-z0-9-]+" asked for a range that is none: .*; make ranges with IoRange/s
      assert.match(yield* refused(DebugExit.make({ port: 0xffff })), range)
      assert.match(yield* refused(Uart16550.make({ base: -1 })), range)
      assert.match(yield* refused(Uart16550.make({ base: 0.5 })), range)
      assert.match(yield* refused(MmioScratch.make({ base: 2 ** 52 })), range)
      assert.match(yield* refused(MmioScratch.make({ bytes: -1 })), range)
      assert.match(yield* refused(MmioScratch.make({ bytes: Number.NaN })), range)
      assert.strictEqual(
        yield* refused(Uart16550.make({ irq: 99 })),
        "device \"uart0\" cannot have interrupt line 99: the VM has lines 0 to 15; choose one of them"
      )
      assert.strictEqual(
        yield* refused(Pit8254.make({ irq: -1 })),
        "device \"pit\" cannot have interrupt line -1: the VM has lines 0 to 15; choose one of them"
      )

      assert.deepStrictEqual(yield* vm.io.counts, [], "a refused device left a client")
      yield* vm.attach(StandardPc.make({ scratch: {} }))
    }).pipe(Effect.scoped, onSimulated))
})
