/**
 * Later, without a clock: on turns of the host's scheduler.
 */
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"

/** Runs a task after so many turns; after none, at once. */
export const afterTurns = (host: Scheduler.SchedulerDispatcher, turns: number, task: () => void): void => {
  if (turns <= 0) task()
  else host.scheduleTask(() => afterTurns(host, turns - 1, task), 0)
}

/** Lets so many turns pass. */
export const waitTurns = (turns: number): Effect.Effect<void> =>
  turns <= 0 ? Effect.void : Effect.flatMap(Effect.yieldNow, () => waitTurns(turns - 1))
