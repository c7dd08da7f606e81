/**
 * Who hears of something as it happens, and the stream of it.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

export class Listeners<A> {
  /** What happens from now on; a slow reader keeps the newest. */
  readonly stream: Stream.Stream<A>
  private listeners: ReadonlyArray<(value: A) => void> = []

  constructor(bufferSize: number) {
    this.stream = Stream.callback<A>(
      (queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const listener = (value: A) => Queue.offerUnsafe(queue, value)
            this.listeners = [...this.listeners, listener]
            return listener
          }),
          (listener) =>
            Effect.sync(() => {
              this.listeners = this.listeners.filter((other) => other !== listener)
            })
        ),
      { bufferSize, strategy: "sliding" }
    )
  }

  tell(value: A): void {
    for (const listener of this.listeners) listener(value)
  }
}
