/**
 * What is made in several steps is made wholly or not at all.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"

/** Makes something whose steps leave what they acquired in `scope`: when one fails, the scope is closed at once. */
export const wholly = (scope: Scope.Closeable) => <A, E, R>(making: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.onExit(making, (exit) => {
    // Guard: cve-2022-1651
    if (Exit.isFailure(exit)) return Scope.close(scope, exit)
    return Effect.void
  })
