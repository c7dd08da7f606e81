/**
 * A VM's own time, for writers of hypervisor layers: a Clock whose sleeps fire when the layer moves time, and a
 * Scheduler whose work the layer runs first. Guest time does not advance while device work is runnable, so with a
 * virtual source of time a run is reproducible to the bit.
 *
 * Outside of the layer's own run loop (a VM that is not started, is paused, or waits) work that is scheduled here runs
 * on the host's next turn, so device fibers never hang on a VM that stands still.
 *
 * @since 0.1.0
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"

interface Timer {
  readonly at: number
  readonly fire: () => void
}

const NANOS_PER_MILLI = 1_000_000
const OPERATIONS_BEFORE_YIELD = 2048

/**
 * @category models
 * @since 0.1.0
 */
export class GuestTimeline {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  /** Called when a timer is set that comes before every other, so that a layer that waits can wait shorter. */
  onEarlierTimer: () => void = () => undefined

  private nowNs = 0
  private timers: Array<Timer> = []
  private ready: Array<() => void> = []
  private isHostTurnAsked = false
  private readonly host: Scheduler.SchedulerDispatcher

  /** `epochMs` is the wall-clock time at guest time 0, in milliseconds since 1970. */
  constructor(epochMs: number, hostScheduler: Scheduler.Scheduler) {
    this.host = hostScheduler.makeDispatcher()
    const millis = () => epochMs + this.nowNs / NANOS_PER_MILLI
    const wallNanos = () => BigInt(Math.round(epochMs)) * BigInt(NANOS_PER_MILLI) + BigInt(Math.round(this.nowNs))
    const monotonic = () => BigInt(Math.round(this.nowNs))
    this.clock = {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: wallNanos,
      currentTimeNanos: Effect.sync(wallNanos),
      monotonicTimeNanosUnsafe: monotonic,
      monotonicTimeNanos: Effect.sync(monotonic),
      sleep: (duration) =>
        Effect.callback<void>((resume) => {
          const timer = this.setTimer(Duration.toMillis(duration) * NANOS_PER_MILLI, () => resume(Effect.void))
          return Effect.sync(() => this.cancel(timer))
        })
    }
    this.scheduler = {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= OPERATIONS_BEFORE_YIELD,
      makeDispatcher: () => ({
        scheduleTask: (task) => this.schedule(task),
        flush: () => this.drain()
      })
    }
  }

  /** Guest time in nanoseconds since the VM was created. */
  get now(): number {
    return this.nowNs
  }

  /** When the next timer is due, in guest nanoseconds; `Infinity` without one. */
  get nextDeadline(): number {
    return this.timers[0]?.at ?? Infinity
  }

  /** Whether device work waits to be run. */
  get hasWork(): boolean {
    return this.ready.length > 0
  }

  /** Runs device work until none is left. */
  drain(): void {
    while (this.ready.length > 0) {
      const batch = this.ready
      this.ready = []
      for (let i = 0; i < batch.length; i++) batch[i]!()
    }
  }

  /** Moves time on to `ns`, firing what is due on the way, each timer at its own time. Time never goes back. */
  advanceTo(ns: number): void {
    this.drain()
    for (let at = this.nextDeadline; at <= ns && at !== Infinity; at = this.nextDeadline) {
      const timer = this.timers.shift()!
      this.nowNs = Math.max(this.nowNs, at)
      timer.fire()
      this.drain()
    }
    // Time that is asked to run out stops at the last timer: there is no later moment to be at.
    if (ns !== Infinity) this.nowNs = Math.max(this.nowNs, ns)
  }

  private setTimer(delayNs: number, fire: () => void): Timer {
    const at = Number.isFinite(delayNs) ? this.nowNs + Math.max(0, delayNs) : Infinity
    const timer: Timer = { at, fire }
    const index = this.timers.findIndex((other) => other.at > at)
    if (index < 0) this.timers.push(timer)
    else this.timers.splice(index, 0, timer)
    if (this.timers[0] === timer) this.onEarlierTimer()
    return timer
  }

  /** Takes a timer back that has not fired: a timeout per request must not leave one timer behind for each. */
  private cancel(timer: Timer): void {
    const index = this.timers.indexOf(timer)
    if (index >= 0) this.timers.splice(index, 1)
  }

  private schedule(task: () => void): void {
    this.ready.push(task)
    if (this.isHostTurnAsked) return
    this.isHostTurnAsked = true
    this.host.scheduleTask(() => {
      this.isHostTurnAsked = false
      this.drain()
    }, 0)
  }
}
