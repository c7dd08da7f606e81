/**
 * The terminal's raw mode: each key reaches the program at once, unchanged and unechoed, Ctrl-C included.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

/**
 * Only asked for when standard input is a terminal.
 */
export class RawMode extends Context.Service<RawMode, {
  /** Raw until the scope closes. */
  readonly enter: Effect.Effect<void, never, Scope.Scope>
}>()("upcall/cli/RawMode") {}

/** The terminal of this process. Should it be gone, nothing is left to set. */
export const layer: Layer.Layer<RawMode> = Layer.succeed(
  RawMode,
  RawMode.of({
    enter: Effect.acquireRelease(
      Effect.ignore(Effect.try(() => process.stdin.setRawMode(true))),
      () => Effect.ignore(Effect.try(() => process.stdin.setRawMode(false)))
    )
  })
)
