/**
 * The state that all handles of one VM share: where the VM is in its life, and which handle is current.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { EndReason } from "../../domain/EndReason.ts"
import * as VmState from "../../domain/VmState.ts"
import type { VirtualMachineError } from "../VirtualMachineError.ts"
import { refuse } from "./refusal.ts"

const stopped: EndReason = { _tag: "Stopped" }
const KEPT_TRANSITIONS = 1024

export class VmCore {
  state: VmState.VmState = VmState.created
  /** Moves on with every command; a handle knows the one it was made for. */
  generation = 0
  ended: Deferred.Deferred<EndReason> = Deferred.makeUnsafe()
  /** The VM's scope is being closed, or was: its id and its memory may be another VM's. */
  isClosed = false
  /** Why the guest stopped, from the moment it did: who waits is told in a later turn. */
  endReason: EndReason | undefined
  readonly name: string
  readonly transitions: Array<VmState.VmTransition> = []
  private readonly oneAtATime = Semaphore.makeUnsafe(1)

  constructor(name: string) {
    this.name = name
  }

  /**
   * Takes one step of the VM's life: `prepare` may be interrupted and may fail with nothing changed; `perform` is the
   * hypercall, after which the step counts. `undo` takes the preparation back when an interruption came after it.
   */
  take<A, E1, R1, R2>(
    handle: { readonly generation: number; readonly state: string },
    command: VmState.VmCommand,
    prepare: Effect.Effect<void, E1, R1>,
    perform: Effect.Effect<A, VirtualMachineError, R2>,
    undo: Effect.Effect<void> = Effect.void
  ): Effect.Effect<A, VirtualMachineError | E1, R1 | R2> {
    const step = Effect.suspend(() => {
      const next = VmState.step(this.state, command)
      if (Result.isFailure(next)) {
        return refuse({ _tag: "IllegalState", vm: this.name, command, state: this.state._tag })
      }
      // An interruption ends the preparation or comes after the step, never between: what was prepared would stay so.
      return Effect.uninterruptibleMask((restore) =>
        Effect.andThen(
          Effect.onInterrupt(restore(prepare), () => undo),
          Effect.tap(perform, () => Effect.sync(() => this.record(next.success)))
        )
      )
    })
    return this.oneAtATime.withPermits(1)(Effect.andThen(this.current(handle), step))
  }

  /** Does something that changes no state, on a handle that must be current. */
  whileCurrent<A, E, R>(
    handle: { readonly generation: number; readonly state: string },
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<A, VirtualMachineError | E, R> {
    return this.oneAtATime.withPermits(1)(Effect.andThen(this.current(handle), effect))
  }

  /** The end of the VM, whatever state it is in: waits for a command under way, and makes every handle stale. */
  close<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return this.oneAtATime.withPermits(1)(Effect.suspend(() => {
      this.generation++
      this.isClosed = true
      return effect
    }))
  }

  /** Records a step that was taken. */
  record(step: VmState.VmTransition): void {
    this.state = step.to
    this.generation++
    if (this.transitions.length === KEPT_TRANSITIONS) this.transitions.shift()
    this.transitions.push(step)
  }

  /** A life that did not end by itself is over: who waits for its end hears so, and the next life has an end of its own. */
  endLife(): void {
    Deferred.doneUnsafe(this.ended, Exit.succeed(this.endReason ?? stopped))
    this.ended = Deferred.makeUnsafe()
    this.endReason = undefined
  }

  /** Records that the VM was paused, if it was not yet, and destroyed. */
  recordEnd(): void {
    for (const command of ["Pause", "Destroy"] as const) {
      const next = VmState.step(this.state, command)
      if (Result.isSuccess(next) && next.success.to !== this.state) this.record(next.success)
    }
  }

  private current(
    handle: { readonly generation: number; readonly state: string }
  ): Effect.Effect<void, VirtualMachineError> {
    return Effect.suspend(() =>
      handle.generation === this.generation
        ? Effect.void
        : refuse({ _tag: "Stale", vm: this.name, handle: handle.state, current: this.state._tag })
    )
  }
}
