/** The guests that try a KVM must themselves be right, so they run where every instruction is known. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { runGuest } from "../../../src/cli/doctor/tryGuests.ts"
import * as Emulated from "../../../src/layers/Emulated.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"

const onEmulated = Effect.provide(
  VirtualMachine.layer.pipe(Layer.provide(Emulated.layerWith({ clock: "Virtual" })))
)

describe("the guests of the doctor", () => {
  for (const name of ["first", "paging", "interruptReturn"] as const) {
    it.effect(`${name} ends as it should`, () =>
      Effect.gen(function*() {
        assert.isUndefined(yield* runGuest(name))
      }).pipe(onEmulated))
  }

  it.effect("one that does not run says so", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(runGuest("longMode"))
      assert.include(error.message, "Long64")
    }).pipe(onEmulated))
})
