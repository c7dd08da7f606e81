/**
 * A Scheduler that runs what is runnable only when it is told to, first come, first served, and a Clock that moves only
 * when nothing is runnable: nothing in them depends on the host.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"

interface Timer {
  readonly at: number
  readonly fire: () => void
}

const OPERATIONS_BEFORE_YIELD = 2048

export class VirtualTime {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  /** Milliseconds since the run began. */
  now = 0
  private tasks: Array<() => void> = []
  private timers: Array<Timer> = []

  constructor(epochMs: number) {
    const millis = () => epochMs + this.now
    const nanos = (ms: number) => BigInt(Math.round(ms * 1e6))
    const wall = () => nanos(epochMs) + nanos(this.now)
    const monotonic = () => nanos(this.now)
    this.clock = {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: wall,
      currentTimeNanos: Effect.sync(wall),
      monotonicTimeNanosUnsafe: monotonic,
      monotonicTimeNanos: Effect.sync(monotonic),
      sleep: (duration) => this.sleep(Duration.toMillis(duration))
    }
    this.scheduler = {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= OPERATIONS_BEFORE_YIELD,
      makeDispatcher: () => ({
        scheduleTask: (task) => {
          this.tasks.push(task)
        },
        // Who flushes is inside of a task: what it waits for runs after it.
        flush: () => undefined
      })
    }
  }

  /** When the next timer is due; `Infinity` without one. */
  get nextTimer(): number {
    return this.timers[0]?.at ?? Infinity
  }

  /** Runs what is runnable until nothing is; `false` when `limit` tasks did not come to an end. */
  drain(limit: number): boolean {
    for (let left = limit; left > 0; left--) {
      const task = this.tasks.shift()
      if (task === undefined) return true
      task()
    }
    return this.tasks.length === 0
  }

  /** Moves time on to the next timer, and fires that one alone. */
  fireNext(): void {
    const timer = this.timers.shift()
    if (timer === undefined) return
    this.now = Math.max(this.now, timer.at)
    timer.fire()
  }

  /** Moves time on; timers on the way fire, each at its own time, and what they wake up to its next wait runs with them. */
  moveTo(ms: number): void {
    while (this.nextTimer <= ms) this.fireNext()
    this.now = Math.max(this.now, ms)
  }

  private sleep(ms: number): Effect.Effect<void> {
    if (!(ms > 0)) return Effect.yieldNow
    if (ms === Infinity) return Effect.never
    return Effect.callback<void>((resume) => {
      const timer = { at: this.now + ms, fire: () => resume(Effect.void) }
      const index = this.timers.findIndex(({ at }) => at > timer.at)
      this.timers.splice(index < 0 ? this.timers.length : index, 0, timer)
      return Effect.sync(() => {
        this.timers = this.timers.filter((other) => other !== timer)
      })
    })
  }
}
