/**
 * Whether a dispatcher takes new requests. Drains that programs ask for and the pause of the VM hold them back, and wait
 * until those that are held are over.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { IoDispatcherError } from "../IoDispatcher.ts"

const DEFAULT_DEADLINE = Duration.seconds(1)

export class Intake {
  /** Drains and a pause: while there are any, new requests are left alone. */
  holds = 0
  private drains = 0
  /** Moves on when all drains end at once; a drain knows whether it was among them. */
  private round = 0
  private isPaused = false
  private waiters: Array<() => void> = []
  private readonly holders: () => ReadonlyArray<string>
  private readonly serve: () => void

  /** `holders` names who holds requests, `serve` looks for those that came meanwhile. */
  constructor(holders: () => ReadonlyArray<string>, serve: () => void) {
    this.holders = holders
    this.serve = serve
  }

  /** A request is over; perhaps it was the last. */
  requestOver(): void {
    if (this.waiters.length === 0 || this.holders().length > 0) return
    const waiters = this.waiters
    this.waiters = []
    for (const waiter of waiters) waiter()
  }

  readonly drain = (deadline?: Duration.Input): Effect.Effect<void, IoDispatcherError> =>
    Effect.suspend(() => {
      const round = this.round
      this.drains++
      this.holds++
      return Effect.onError(this.nothingHeld(deadline), () =>
        Effect.sync(() => {
          if (this.round !== round) return
          this.drains--
          this.release(1)
        }))
    })

  /** Ends all drains, not a pause. */
  readonly proceed: Effect.Effect<void> = Effect.sync(() => this.release(this.endDrains()))

  /** As a drain that `proceed` does not end. */
  readonly pause = (deadline?: Duration.Input): Effect.Effect<void, IoDispatcherError> =>
    Effect.suspend(() => {
      if (!this.isPaused) this.holds++
      this.isPaused = true
      return Effect.onError(this.nothingHeld(deadline), () => this.unpause)
    })

  /** The pause did not come to be; drains hold requests back as before. */
  readonly unpause: Effect.Effect<void> = Effect.sync(() => this.release(this.endPause()))

  /** The guest runs on: a drain that somebody forgot must not starve it. */
  readonly resume: Effect.Effect<void> = Effect.sync(() => this.release(this.endDrains() + this.endPause()))

  private endDrains(): number {
    const drains = this.drains
    this.drains = 0
    this.round++
    return drains
  }

  private endPause(): number {
    const wasPaused = this.isPaused
    this.isPaused = false
    return wasPaused ? 1 : 0
  }

  private release(holds: number): void {
    this.holds -= holds
    if (holds > 0 && this.holds === 0) this.serve()
  }

  private readonly nothingHeld = (
    deadline: Duration.Input = DEFAULT_DEADLINE
  ): Effect.Effect<void, IoDispatcherError> =>
    Effect.suspend(() => {
      if (this.holders().length === 0) return Effect.void
      const settled = Effect.callback<void>((resume) => {
        const waiter = () => resume(Effect.void)
        this.waiters.push(waiter)
        return Effect.sync(() => {
          this.waiters = this.waiters.filter((other) => other !== waiter)
        })
      })
      return Effect.timeoutOrElse(settled, {
        duration: deadline,
        orElse: () =>
          Effect.suspend(() => {
            const deadlineMs = Duration.toMillis(Duration.fromInputUnsafe(deadline))
            return Effect.fail(
              new IoDispatcherError({ reason: { _tag: "DrainTimeout", clients: this.holders(), deadlineMs } })
            )
          })
      })
    })
}
