/**
 * A PCI configuration space with nothing in it: reads give all-ones, writes are ignored, as on a bus where no function
 * answers (PCI Local Bus Specification 3.0, 6.1). It makes a guest's probing an answer instead of unhandled requests.
 *
 * A device that has a function of its own registers it as usual: a claim on one function precedes this one.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { allOnes } from "./internal/bytePorts.ts"

/**
 * `name`: how dispatch calls the device (default `pci`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
}

/**
 * The empty configuration space.
 *
 * @category services
 * @since 0.1.0
 */
export class PciConfigSpace extends Context.Service<PciConfigSpace, {
  readonly name: string
}>()("upcall/layers/devices/PciConfigSpace") {}

/**
 * Puts the configuration space into the machine until the scope closes. Fails with `Overlap` when the machine has one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<PciConfigSpace["Service"], IoDispatcherError, Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { name = "pci" } = options
    const machine = yield* Machine
    yield* machine.io.register({ name, ranges: [IoRange.pciAny], handle: () => allOnes })
    return PciConfigSpace.of({ name })
  })

/**
 * A configuration space for the machine that it is built for; each build makes another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<PciConfigSpace, IoDispatcherError, Machine> =>
  Layer.fresh(Layer.effect(PciConfigSpace, make(options)))
