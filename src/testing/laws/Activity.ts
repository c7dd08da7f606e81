/**
 * Handlers that take turns of the host before they do anything, as those do that wait for a file or a socket, and how
 * many of them run. They are those of the clients that are registered with this in their context.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"
import { AroundHandlers } from "../../services/IoDispatcher.ts"
import { afterTurns } from "../adversaries/hostTurns.ts"

export interface Activity {
  readonly running: () => number
  readonly watch: <A, E, R>(registering: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** What suspends until the host had so many turns; guest time does not pass for it. */
const hostTurns = (count: number): Effect.Effect<Effect.Effect<void>> =>
  Effect.map(Scheduler.Scheduler, (scheduler) => {
    const host = scheduler.makeDispatcher()
    return Effect.callback<void>((resume) => afterTurns(host, count, () => resume(Effect.void)))
  })

export const make = (turns: number): Effect.Effect<Activity> =>
  Effect.map(hostTurns(turns), (wait) => {
    let running = 0
    const enter = Effect.sync(() => {
      running++
    })
    const leave = Effect.sync(() => {
      running--
    })
    return {
      running: () => running,
      watch: (registering) =>
        Effect.flatMap(AroundHandlers, (around) =>
          Effect.provideService(registering, AroundHandlers, (client, handle) => {
            const inner = around(client, handle)
            return (request) => {
              const effect = inner(request)
              if (turns > 0) {
                return Effect.acquireUseRelease(enter, () =>
                  Effect.andThen(wait, effect), () => leave)
              }
              // One that is an answer already never runs.
              return Exit.isExit(effect) ? effect : Effect.acquireUseRelease(enter, () => effect, () => leave)
            }
          }))
    }
  })
