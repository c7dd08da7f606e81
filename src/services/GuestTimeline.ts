/**
 * A VM's own time, for writers of hypervisor layers: a Clock whose sleeps fire when the layer moves time, and a
 * Scheduler whose work the layer runs first. Guest time does not advance while device work is runnable, so with a
 * virtual source of time a run is reproducible to the bit.
 *
 * Outside of the layer's own run loop (a VM that is not started, is paused, or waits) work that is scheduled here runs
 * on the host's next turn, so device fibers never hang on a VM that stands still.
 *
 * Device work that never ends (a fiber that yields for ever, or sleeps for no time) is bounded by counts, not by the
 * host's clock, so that it starves neither the guest nor the host and a run stays reproducible.
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
// Tens of milliseconds of the host at 2048 operations each: far beyond what an answer takes, short enough to wait for.
const ROUNDS_PER_DRAIN = 1024
const TIMERS_PER_ADVANCE = 0x4000
const TIMERS_AFTER_END = 4096

/**
 * The time of one VM: its Clock and Scheduler for devices, and what its layer moves it with. Times are in nanoseconds
 * of guest time, from 0 at the VM's creation.
 *
 * @category models
 * @since 0.1.0
 */
export class GuestTimeline {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  /** Called when a timer is set, so that a layer that waits can wait shorter, or no more. */
  onTimer: () => void = () => undefined

  private nowNs = 0
  private timers: Array<Timer> = []
  private ready: Array<() => void> = []
  private isHostTurnAsked = false
  private isFlooded = false
  /** Timers that may still fire with no VM to move time. */
  private timersAfterEnd = 0
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
      sleep: (duration) => {
        const delayNs = Duration.toMillis(duration) * NANOS_PER_MILLI
        // No time passes: the fiber only lets others run first. As a timer it could fire for ever at one moment.
        if (!(delayNs > 0)) return Effect.yieldNow
        return Effect.callback<void>((resume) => {
          const timer = this.setTimer(delayNs, () => resume(Effect.void))
          return Effect.sync(() => this.cancel(timer))
        })
      }
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

  /** Whether device work waits to be run, that the guest's time has to wait for. */
  get hasWork(): boolean {
    return this.ready.length > 0 && !this.isFlooded
  }

  /**
   * Runs device work until none is left. Work that makes more work for 1024 rounds is never done: from then on, until
   * it is, each call runs one round and guest time goes on beside it.
   */
  drain(): void {
    for (let rounds = this.isFlooded ? 1 : ROUNDS_PER_DRAIN; rounds > 0 && this.ready.length > 0; rounds--) {
      const batch = this.ready
      this.ready = []
      for (let i = 0; i < batch.length; i++) batch[i]!()
    }
    this.isFlooded = this.ready.length > 0
  }

  /**
   * Moves time on to `ns`, firing what is due on the way, each timer at its own time. Time never goes back. More than
   * 16,384 timers in one go are too many for one turn of the host: time then stops at the last that fired, and the
   * next call goes on from there.
   */
  advanceTo(ns: number): void {
    this.drain()
    let left = TIMERS_PER_ADVANCE
    for (let at = this.nextDeadline; at <= ns && at !== Infinity; at = this.nextDeadline) {
      if (left-- === 0) return
      this.fireFirst(at)
    }
    // Time that is asked to run out stops at the last timer: there is no later moment to be at.
    if (ns !== Infinity) this.nowNs = Math.max(this.nowNs, ns)
  }

  /**
   * The VM is over and nothing moves its time any more. What its devices still sleep passes at once, so that a finalizer
   * that sleeps cannot hold up the end of the VM's scope; a fiber that nobody ends stands still after 4096 timers.
   */
  runOut(): void {
    this.timersAfterEnd = TIMERS_AFTER_END
    this.askHostTurn()
  }

  private fireFirst(at: number): void {
    const timer = this.timers.shift()!
    this.nowNs = Math.max(this.nowNs, at)
    timer.fire()
    this.drain()
  }

  private setTimer(delayNs: number, fire: () => void): Timer {
    // At least one nanosecond: a sleep that rounds to nothing would be due again at the moment it fires.
    const at = this.nowNs + Math.max(1, delayNs)
    const timer: Timer = { at, fire }
    const index = this.timers.findIndex((other) => other.at > at)
    if (index < 0) this.timers.push(timer)
    else this.timers.splice(index, 0, timer)
    this.onTimer()
    if (this.timersAfterEnd > 0) this.askHostTurn()
    return timer
  }

  /** Takes a timer back that has not fired: a timeout per request must not leave one timer behind for each. */
  private cancel(timer: Timer): void {
    const index = this.timers.indexOf(timer)
    // Guard: cve-2021-36144
    if (index >= 0) this.timers.splice(index, 1)
  }

  private schedule(task: () => void): void {
    this.ready.push(task)
    this.askHostTurn()
  }

  private askHostTurn(): void {
    if (this.isHostTurnAsked) return
    this.isHostTurnAsked = true
    this.host.scheduleTask(() => {
      this.isHostTurnAsked = false
      this.drain()
      const deadline = this.nextDeadline
      if (this.timersAfterEnd > 0 && deadline !== Infinity) {
        this.timersAfterEnd--
        this.fireFirst(deadline)
        this.askHostTurn()
      }
      if (this.ready.length > 0) this.askHostTurn()
    }, 0)
  }
}
