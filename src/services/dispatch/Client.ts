import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"

/** How long a client may hold a request. */
export interface Deadline {
  readonly millis: number
  /** Passes when a request that is held from now on must have been answered. */
  readonly wait: Effect.Effect<void>
}

/** A client as the hot path sees it. */
export interface Client {
  readonly name: string
  readonly handle: (request: IoRequest) => Effect.Effect<IoValue, unknown>
  readonly run: (effect: Effect.Effect<IoValue, unknown>) => Fiber.Fiber<IoValue, unknown>
  /** The time that its handlers live in. */
  readonly clock: Clock.Clock
  readonly deadline: Deadline | undefined
  requests: number
  /** Its scope was closed: a handle that is left must not give it ranges again. */
  isRetired: boolean
}
