/**
 * What the devices of a VM are built into, and how they are all reset.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { inGuestTime } from "../dispatch/guestContext.ts"
import type { GuestTime } from "../Hypervisor.ts"
import { Machine } from "../Machine.ts"

export const makeMachine = (
  parts: Omit<Machine["Service"], "fork" | "onReset">
): { readonly machine: Machine["Service"]; readonly resetDevices: Effect.Effect<void> } => {
  const resets = new Set<Effect.Effect<void>>()
  return {
    machine: Machine.of({
      ...parts,
      fork: forkIn(parts.time),
      onReset: (effect) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            resets.add(effect)
          }),
          () => Effect.sync(() => resets.delete(effect))
        )
    }),
    // The hypervisor was reset already: a device that fails must not keep the others, or the VM, half in the old life.
    resetDevices: Effect.suspend(() =>
      Effect.forEach([...resets], (reset) =>
        Effect.catchCause(
          reset,
          (cause) => Effect.logError(`a device of VM "${parts.name}" failed to reset: ${Cause.pretty(cause)}`)
        ), { discard: true })
    )
  }
}

/** Forks in guest time: what the fiber sleeps is the guest's time, what it yields to is the guest's scheduler. */
const forkIn = (time: GuestTime) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.forkScoped(effect, { startImmediately: true }).pipe(
    Effect.updateContext((context: Context.Context<R | Scope.Scope>) => inGuestTime(context, time))
  )
