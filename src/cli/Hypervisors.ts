/**
 * The hypervisor layers that the command line can choose from.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { EmulatedError } from "../layers/Emulated.ts"
import * as Simulated from "../layers/Simulated.ts"
import type { Hypervisor, IrqLines } from "../services/Hypervisor.ts"

export const NAMES = ["emulated", "simulated"] as const

export const CLOCKS = ["real", "virtual"] as const

/** `clock` and `seed` are as the layers have them; a simulated VM's time is always virtual. */
export interface Choice {
  readonly hypervisor: (typeof NAMES)[number]
  readonly clock: (typeof CLOCKS)[number]
  readonly seed: number
}

/** A hypervisor by its name. Only the one that is chosen is loaded. */
export const layer = (choice: Choice): Layer.Layer<Hypervisor | IrqLines, EmulatedError | Simulated.SimulatedError> => {
  const { clock, hypervisor, seed } = choice
  switch (hypervisor) {
    case "simulated":
      return Simulated.layerWith({ seed })
    case "emulated":
      return Layer.unwrap(Effect.map(
        Effect.promise(() => import("../layers/Emulated.ts")),
        (Emulated) => Emulated.layerWith({ clock: clock === "real" ? "Real" : "Virtual", seed })
      ))
  }
}
