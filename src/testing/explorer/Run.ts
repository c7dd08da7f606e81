/**
 * One run of a scenario under one schedule: everything in it goes on by itself until only marked steps are left to wait,
 * then one of them is chosen.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import { DEFAULT_EPOCH_MS } from "../../layers/model/provide.ts"
import { seededRandom } from "../../layers/model/seededRandom.ts"
import { VirtualTime } from "./VirtualTime.ts"

/** The bounds after which a run counts as one that never ends. */
export interface Bounds {
  /** Steps and choices of one run. */
  readonly steps: number
  /** Turns of fibers between two steps. */
  readonly turns: number
  /** Timers that fire one after another without any step. */
  readonly timers: number
}

interface Step {
  readonly label: string | (() => string)
  readonly isPossible: () => boolean
  readonly resume: (effect: Effect.Effect<void>) => void
}

/** What a run came to. `widths` says how many alternatives there were at each choice. */
export interface Outcome {
  readonly choices: ReadonlyArray<number>
  readonly widths: ReadonlyArray<number>
  readonly steps: ReadonlyArray<string>
  readonly problem: string | undefined
}

/** Picks one of two or more alternatives. */
export type Choose = (alternatives: number, at: number) => number

const RANDOM_SEED = 1
const TURNS_TO_END = 1000

const nameOf = ({ label }: Step): string => typeof label === "string" ? label : label()

export class Run {
  readonly time = new VirtualTime(DEFAULT_EPOCH_MS)
  private readonly actors = new Set<string>()
  private readonly choices: Array<number> = []
  private readonly widths: Array<number> = []
  private readonly steps: Array<string> = []
  private waiting: Array<Step> = []
  private problem: string | undefined
  private isOver = false
  private readonly pick: Choose
  private readonly bounds: Bounds

  constructor(pick: Choose, bounds: Bounds) {
    this.pick = pick
    this.bounds = bounds
  }

  /** Runs a scenario to its end, in `context` with time and chance of its own. */
  to<A, E, R>(scenario: Effect.Effect<A, E, R>, context: Context.Context<R>): Outcome {
    const random = seededRandom(RANDOM_SEED)
    const within = context.pipe(
      // A layer that was built for another run would carry its state into this one.
      Context.omit(Layer.CurrentMemoMap),
      Context.add(Clock.Clock, this.time.clock),
      Context.add(Scheduler.Scheduler, this.time.scheduler),
      Context.add(Random.Random, {
        nextIntUnsafe: random,
        nextDoubleUnsafe: () => (random() >>> 0) / 2 ** 32
      })
    ) as Context.Context<R>
    const fiber = Effect.runForkWith(within)(scenario)
    try {
      this.goOn(fiber)
    } catch (defect) {
      this.violate(`something threw outside of every fiber: ${String(defect)}`)
    }
    this.isOver = true
    const outcome = { choices: this.choices, widths: this.widths, steps: this.steps, problem: this.problem }
    this.abandon(fiber)
    return outcome
  }

  /** A marked step: waits until it is chosen. */
  step(label: Step["label"], isPossible: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      // What is left of a run that is over goes no further: a loop over steps would never end.
      if (this.isOver) return Effect.interrupt
      return Effect.callback<void>((resume) => {
        const step = { label, isPossible, resume }
        this.waiting.push(step)
        return Effect.sync(() => this.withdraw(step))
      })
    })
  }

  /** Chooses at once, in the stack of whoever asks; an alternative with an empty label is not listed as a step. */
  choose(alternatives: ReadonlyArray<string>): number {
    if (this.isOver || this.problem !== undefined) return 0
    const chosen = this.decide(alternatives.length)
    const label = alternatives[chosen] ?? ""
    if (label !== "") this.steps.push(label)
    return chosen
  }

  /** Ends the run with a problem; the first one counts. */
  violate(problem: string): void {
    if (!this.isOver) this.problem ??= problem
  }

  /** Names what runs, so that a run that hangs can say who. */
  actor<A, E, R>(name: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.actors.add(name)
      return Effect.ensuring(effect, Effect.sync(() => this.actors.delete(name)))
    })
  }

  private goOn(fiber: Fiber.Fiber<unknown, unknown>): void {
    let idleTimers = 0
    while (this.problem === undefined) {
      if (!this.time.drain(this.bounds.turns)) return this.violate(this.stuck("fibers take turns without end"))
      const exit = fiber.pollUnsafe()
      if (exit?._tag === "Failure") return this.violate(Cause.pretty(exit.cause))
      const possible = this.waiting.filter((step) => step.isPossible())
      if (possible.length > 0) {
        idleTimers = 0
        if (this.steps.length >= this.bounds.steps) return this.violate(this.stuck("the steps do not end"))
        this.take(possible[this.decide(possible.length)]!)
      } else if (this.time.nextTimer < Infinity) {
        if (idleTimers++ >= this.bounds.timers) return this.violate(this.stuck("only timers fire"))
        this.time.fireNext()
        this.steps.push(`time moves to ${this.time.now} ms`)
      } else {
        if (exit === undefined || this.waiting.length > 0) this.violate(this.stuck("nothing can go on"))
        return
      }
    }
  }

  private take(step: Step): void {
    this.withdraw(step)
    this.steps.push(nameOf(step))
    step.resume(Effect.void)
  }

  private withdraw(step: Step): void {
    this.waiting = this.waiting.filter((other) => other !== step)
  }

  private decide(alternatives: number): number {
    if (alternatives === 1) return 0
    const chosen = this.pick(alternatives, this.choices.length)
    if (chosen >= alternatives) {
      this.violate(
        `the schedule does not fit the scenario: choice ${this.choices.length + 1} is ${chosen}, but there were ` +
          `${alternatives} alternatives`
      )
      return 0
    }
    this.choices.push(chosen)
    this.widths.push(alternatives)
    return chosen
  }

  private stuck(what: string): string {
    const actors = this.actors.size === 0 ? "" : `; not at their end: ${[...this.actors].join(", ")}`
    const steps = this.waiting.length === 0
      ? ""
      : `; steps that never became possible: ${this.waiting.map(nameOf).join(", ")}`
    return `hang: ${what}${actors}${steps}`
  }

  /** Ends what is left of the scenario, as far as it lets itself be ended. */
  private abandon(fiber: Fiber.Fiber<unknown, unknown>): void {
    if (fiber.pollUnsafe() !== undefined && this.waiting.length === 0) return
    fiber.interruptUnsafe()
    for (const step of this.waiting.splice(0)) step.resume(Effect.interrupt)
    this.time.drain(TURNS_TO_END)
  }
}
