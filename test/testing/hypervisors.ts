/**
 * The hypervisors that a test can run everywhere, each with a `VirtualMachine` of its own.
 */
import { type Context, Effect, Layer, type Scope } from "effect"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"

type Over<R> = VirtualMachine.VirtualMachine | R

// Fresh, because one VirtualMachine layer in one graph is one service, over the hypervisor that came first.
const over = <R, E>(hypervisor: Layer.Layer<R, E>) =>
  Layer.fresh(VirtualMachine.layer.pipe(Layer.provideMerge(hypervisor as never))) as Layer.Layer<Over<R>, E>

export const buildSimulated: Effect.Effect<Context.Context<Over<Simulated.Capabilities>>, never, Scope.Scope> = Effect
  .suspend(() => Layer.build(over<Simulated.Capabilities, never>(Simulated.layer as never)))

export const buildEmulated: Effect.Effect<
  Context.Context<Over<Emulated.Capabilities>>,
  Emulated.EmulatedError,
  Scope.Scope
> = Effect.suspend(() =>
  Layer.build(over<Emulated.Capabilities, Emulated.EmulatedError>(Emulated.layerWith({ clock: "Virtual" }) as never))
)
