/**
 * An alarm clock in guest time that can be set and cleared from an I/O handler.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Machine } from "../../../services/Machine.ts"

/** Guest time in nanoseconds since the VM was created. */
export const guestNanos = (machine: Machine["Service"]): number => Number(machine.time.clock.monotonicTimeNanosUnsafe())

export class GuestTimer {
  private deadline = Infinity
  private isFiring = false
  private fiber: Fiber.Fiber<void> | undefined
  private readonly now: () => number
  private readonly start: (effect: Effect.Effect<void>) => Fiber.Fiber<void> | undefined
  private readonly fire: () => void

  constructor(
    now: () => number,
    start: (effect: Effect.Effect<void>) => Fiber.Fiber<void> | undefined,
    fire: () => void
  ) {
    this.now = now
    this.start = start
    this.fire = fire
  }

  /** Fires once, at guest time `nanos`, and not at any time that was set before; `Infinity` is never. */
  set(nanos: number): void {
    if (nanos === this.deadline) return
    this.deadline = nanos
    // A timer that is set as it fires goes on in its own fiber.
    if (this.isFiring) return
    this.fiber?.interruptUnsafe()
    this.fiber = nanos === Infinity ? undefined : this.start(this.loop)
  }

  private readonly loop: Effect.Effect<void> = Effect.suspend(() => {
    if (this.deadline === Infinity) return Effect.void
    const left = this.deadline - this.now()
    // A clock may wake its sleepers early, so time is asked again after each sleep.
    if (left > 0) return Effect.andThen(Effect.sleep(Duration.nanos(BigInt(Math.ceil(left)))), this.loop)
    this.deadline = Infinity
    this.isFiring = true
    this.fire()
    this.isFiring = false
    return this.loop
  })
}

/** A timer whose fibers end with the scope. `fire` may set it again. */
export const makeGuestTimer = (
  machine: Machine["Service"],
  fire: () => void
): Effect.Effect<GuestTimer, never, Scope.Scope> =>
  Effect.map(Effect.context<Scope.Scope>(), (context) => {
    const run = Effect.runForkWith(context)
    const start = (effect: Effect.Effect<void>) => {
      const forked = run(machine.fork(effect)).pollUnsafe()
      return forked?._tag === "Success" ? forked.value : undefined
    }
    return new GuestTimer(() => guestNanos(machine), start, fire)
  })
