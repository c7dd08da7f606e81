/**
 * Wakes a run loop that waits. Rings while nobody waits are kept as one, so none is lost.
 */
import * as Effect from "effect/Effect"

export class Doorbell {
  private isRung = false
  private resume: (() => void) | undefined

  ring(): void {
    const resume = this.resume
    if (resume === undefined) {
      this.isRung = true
      return
    }
    this.resume = undefined
    resume()
  }

  /**
   * Waits for the next ring. It goes on in a turn of its own, never in the stack of whoever rings: a notification must
   * not run a vCPU.
   */
  readonly wait: Effect.Effect<void> = Effect.andThen(
    Effect.callback<void>((resume) => {
      if (this.isRung) {
        this.isRung = false
        resume(Effect.void)
        return
      }
      this.resume = () => resume(Effect.void)
      return Effect.sync(() => {
        this.resume = undefined
      })
    }),
    Effect.yieldNow
  )
}
