/**
 * What must not compile. The type check of the whole project is the test: each line below a `@ts-expect-error` is an
 * error, or the check fails.
 */
import { type Context, Effect, Layer } from "effect"
import type { GuestAddress, ServiceAddress } from "../../src/domain/Address.ts"
import type { EndReason } from "../../src/domain/EndReason.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import * as Pit8254 from "../../src/layers/devices/Pit8254.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import type { PendingSlot, Slot } from "../../src/services/IoRequestBuffer.ts"
import { Machine } from "../../src/services/Machine.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { CreatedVm, PausedVm, RunningVm } from "../../src/services/Vm.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"

export const vmStates = (created: CreatedVm, running: RunningVm, paused: PausedVm): ReadonlyArray<unknown> => [
  created.start,
  created.pause,
  running.pause,
  running.ended,
  paused.reset,
  paused.resume,
  // @ts-expect-error: ACRN resets a paused VM only.
  created.reset,
  // @ts-expect-error: a VM that did not start has no end.
  created.ended,
  // @ts-expect-error: it runs already.
  running.start,
  // @ts-expect-error: registers are set while no vCPU runs.
  running.setRegisters,
  // @ts-expect-error: an image is loaded while no vCPU runs.
  running.load,
  // @ts-expect-error: the memory map changes while no vCPU runs.
  running.mapMemory,
  // @ts-expect-error: a paused VM is resumed or reset, START is for a created one.
  paused.start,
  // @ts-expect-error: no hypervisor needs to be asked to destroy a VM; its scope does.
  paused.destroy
]

export const slotStates = (pending: PendingSlot, held: Slot<"Processing">, done: Slot<"Complete">): ReadonlyArray<
  unknown
> => [
  pending.claim,
  pending.answer,
  held.complete,
  // @ts-expect-error: what nobody claimed cannot be completed.
  pending.complete(0),
  // @ts-expect-error: a request is claimed once.
  held.claim,
  // @ts-expect-error: the slot is the hypervisor's again.
  done.complete
]

// @ts-expect-error: a service address is not a guest address.
export const mixedUp = (address: ServiceAddress): GuestAddress => address
// @ts-expect-error: nor is any number.
export const unchecked: GuestAddress = 4096

/** A device that interrupts, on a hypervisor that has no interrupt lines. */
const withTimer = Effect.scoped(Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 4096 })
  yield* vm.attach(Pit8254.make())
}))
declare const bareHypervisor: Layer.Layer<Hypervisor>

export const onSimulated: Effect.Effect<void, unknown> = withTimer.pipe(
  Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer)))
)
// @ts-expect-error: IrqLines is still asked for.
export const onBare: Effect.Effect<void, unknown> = withTimer.pipe(
  Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(bareHypervisor)))
)

/** Running a paused VM on, which ACRN cannot. */
const resuming = (paused: PausedVm) => Effect.asVoid(paused.resume)
// @ts-expect-error: Resume is still asked for.
export const resumedWithout = (paused: PausedVm): Effect.Effect<void, unknown> => resuming(paused)
export const resumedWith = (paused: PausedVm, has: Context.Context<Simulated.Capabilities>) =>
  Effect.provideContext(resuming(paused), has) satisfies Effect.Effect<void, unknown>

/** A device outside of any machine. */
const device = Effect.flatMap(
  Machine,
  (machine) => machine.io.register({ name: "d", ranges: [IoRange.pciAny], handle: () => Effect.void })
)
// @ts-expect-error: a device is part of a machine.
export const loose: Effect.Effect<unknown, unknown> = Effect.scoped(device)
export const attached: Effect.Effect<unknown, unknown> = Effect.scoped(
  Effect.flatMap(TestMachine.make(), (machine) => machine.attach(device))
)

export const ends = (reason: EndReason): number => {
  switch (reason._tag) {
    case "Exited":
      return reason.status
    default:
      // @ts-expect-error: only an exit has a status.
      return reason.status
  }
}
