/**
 * A scheduler that runs its fibers a few operations at a time, when it is told to: for doing something at any point of
 * an effect.
 */
import type { Scheduler } from "effect"

const OPERATIONS_A_STEP = 2

export class Stepper implements Scheduler.Scheduler {
  readonly executionMode = "async"
  private tasks: Array<() => void> = []

  shouldYield(fiber: { readonly currentOpCount: number }): boolean {
    return fiber.currentOpCount > OPERATIONS_A_STEP
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return {
      scheduleTask: (task) => {
        this.tasks.push(task)
      },
      flush: () => undefined
    }
  }

  /** Runs up to `count` steps; how many there were. */
  run(count: number = Infinity): number {
    let done = 0
    while (done < count) {
      const task = this.tasks.shift()
      if (task === undefined) return done
      done++
      task()
    }
    return done
  }
}
