import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"

/** A client as the hot path sees it. */
export interface Client {
  readonly name: string
  readonly handle: (request: IoRequest) => Effect.Effect<IoValue, unknown>
  readonly run: (effect: Effect.Effect<IoValue, unknown>) => Fiber.Fiber<IoValue, unknown>
  requests: number
  /** Its scope was closed: a handle that is left must not give it ranges again. */
  isRetired: boolean
}
