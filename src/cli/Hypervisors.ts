/**
 * The hypervisor layers that the command line can choose from.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { EmulatedError } from "../layers/Emulated.ts"
import type { KvmError } from "../layers/Kvm.ts"
import * as Simulated from "../layers/Simulated.ts"
import type { Hypervisor, IrqLines } from "../services/Hypervisor.ts"
import { tryFirst } from "./doctor/tryGuests.ts"

export const NAMES = ["emulated", "simulated", "kvm", "auto"] as const

export const CLOCKS = ["real", "virtual"] as const

export const PLACEMENTS = ["inline", "worker"] as const

/** `clock`, `seed` and `placement` are as the layers have them; a simulated VM's time is always virtual. */
export type Choice =
  | { readonly _tag: "Emulated"; readonly clock: (typeof CLOCKS)[number]; readonly seed: number }
  | { readonly _tag: "Simulated"; readonly seed: number }
  | { readonly _tag: "Kvm"; readonly placement: (typeof PLACEMENTS)[number] }

/** What is used where nobody chose anything. */
export const DEFAULT_SEED = 1
export const DEFAULT_PLACEMENT = "inline"
const emulated: Choice = { _tag: "Emulated", clock: "real", seed: DEFAULT_SEED }

/** KVM where a guest runs on it, else the emulator; and why. */
export const automatic = (
  device = "/dev/kvm"
): Effect.Effect<{ readonly choice: Choice; readonly explanation: string }> =>
  Effect.map(tryFirst(device), (trial) =>
    trial._tag === "Ran"
      ? { choice: { _tag: "Kvm", placement: DEFAULT_PLACEMENT }, explanation: "running on KVM" }
      : { choice: emulated, explanation: `running on the emulator, without KVM: ${trial.problem}` })

/** A hypervisor that was chosen. Only this one is loaded. */
export const layer = (
  choice: Choice
): Layer.Layer<Hypervisor | IrqLines, EmulatedError | KvmError | Simulated.SimulatedError> => {
  switch (choice._tag) {
    case "Simulated":
      return Simulated.layerWith({ seed: choice.seed })
    case "Emulated":
      return Layer.unwrap(Effect.map(
        Effect.promise(() => import("../layers/Emulated.ts")),
        (Emulated) => Emulated.layerWith({ clock: choice.clock === "real" ? "Real" : "Virtual", seed: choice.seed })
      ))
    case "Kvm":
      return Layer.unwrap(Effect.map(
        Effect.promise(() => import("../layers/Kvm.ts")),
        (Kvm) => Kvm.layerWith({ placement: choice.placement === "inline" ? "Inline" : "Worker" })
      ))
  }
}
