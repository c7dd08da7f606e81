/** Options of layers that are out of their bounds: a typed error before anything is built. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"

const refused = <A, E extends { readonly message: string }>(layer: Layer.Layer<A, E>) =>
  Effect.scoped(Effect.map(Effect.flip(Layer.build(layer)), (error) => error.message))

describe("options of layers", () => {
  it.effect("that are out of bounds are refused in words", () =>
    Effect.gen(function*() {
      const ofSimulated = "the simulated hypervisor's option "
      const ofEmulated = "the emulated hypervisor's option "
      assert.strictEqual(
        yield* refused(Simulated.layerWith({ seed: 0.5 })),
        `${ofSimulated}seed is 0.5 but must be an integer from -2147483648 to 4294967295`
      )
      assert.strictEqual(
        yield* refused(Simulated.layerWith({ epochMs: Number.NaN })),
        `${ofSimulated}epochMs is NaN but must be an integer from 0 to 8640000000000000`
      )
      assert.strictEqual(
        yield* refused(Simulated.layerWith({ maxVms: 0 })),
        `${ofSimulated}maxVms is 0 but must be an integer from 1 to 1024`
      )
      assert.strictEqual(
        yield* refused(Simulated.layerWith({ configuredVcpus: 17 })),
        `${ofSimulated}configuredVcpus is 17 but must be an integer from 1 to 16`
      )
      assert.strictEqual(
        yield* refused(Simulated.layerWith({ maxRamBytes: -1 })),
        `${ofSimulated}maxRamBytes is -1 but must be an integer from 4096 to 4503599627370496`
      )
      assert.strictEqual(
        yield* refused(Emulated.layerWith({ maxVms: 1025 })),
        `${ofEmulated}maxVms is 1025 but must be an integer from 1 to 1024`
      )
      assert.strictEqual(
        yield* refused(Emulated.layerWith({ epochMs: -1, clock: "Virtual" })),
        `${ofEmulated}epochMs is -1 but must be an integer from 0 to 8640000000000000`
      )
    }))
})
