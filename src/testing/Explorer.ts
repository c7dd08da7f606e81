/**
 * Every order in which the parts of a program can act, tried one after another: a model checker for Effect programs over
 * a simulated hypervisor.
 *
 * A scenario is an Effect whose actors mark their protocol steps with {@link step}. In an exploration whatever is not
 * marked goes on by itself, always in the same order; once everything waits, one of the waiting steps is chosen and goes
 * on. That choice is all that differs from run to run, so running the scenario anew with each sequence of choices runs
 * it in every order there is. Time is virtual and moves only when nothing else can. Outside of an exploration a marked
 * step does nothing.
 *
 * A run fails when the scenario fails, when {@link Exploration.violate} is called, and when it hangs: when it is not over
 * and nothing can go on, or when it goes on without end. Its schedule, a short text, replays it.
 *
 * What is not marked is not interleaved, and steps that wait for the host (promises, its timers) are seen as a hang.
 *
 * **Example** (A lost update)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Explorer from "upcall/testing/Explorer"
 *
 * const scenario = Effect.gen(function*() {
 *   let count = 0
 *   const increment = (name: string) =>
 *     Effect.gen(function*() {
 *       yield* Explorer.step(`${name} reads`)
 *       const read = count
 *       yield* Explorer.step(`${name} writes`)
 *       count = read + 1
 *     })
 *   yield* Explorer.actors({ a: increment("a"), b: increment("b") })
 *   if (count !== 2) return yield* Effect.die(`the count is ${count}`)
 * })
 * const { failure, schedules } = await Effect.runPromise(Explorer.explore(scenario))
 * console.log(schedules, failure?.schedule, failure?.steps.join(", "))
 * // => 1 000 a reads, b reads, a writes, b writes
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { seededRandom } from "../layers/model/seededRandom.ts"
import { type Bounds, type Outcome, Run } from "./explorer/Run.ts"
import * as Schedule from "./explorer/Schedule.ts"

/**
 * What the actors of a scenario have to do with its exploration, for those that are no Effects: a page at whose accesses
 * somebody else may act, a check inside of a callback.
 *
 * @category models
 * @since 0.1.0
 */
export interface Exploration {
  /** Whether there is an exploration at all. */
  readonly isExploring: boolean
  /**
   * Waits at a marked step until it is chosen; it is not chosen while `isPossible` says no. A label that is a function
   * is asked when the step is taken.
   */
  readonly step: (label: string | (() => string), isPossible: () => boolean) => Effect.Effect<void>
  /**
   * Chooses between alternatives at once, in the caller's stack; the index of one of them. They are named as the run's
   * steps are, save one with an empty name, which stands for "nothing happens". Outside of an exploration: the first.
   */
  readonly choose: (alternatives: ReadonlyArray<string>) => number
  /** The run fails, with this problem unless it had one already. Outside of an exploration it throws. */
  readonly violate: (problem: string) => void
  /** Names an actor while it runs. */
  readonly actor: <A, E, R>(name: string, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Moves virtual time on by so many milliseconds; timers on the way fire. */
  readonly advance: (ms: number) => void
}

const outside: Exploration = {
  isExploring: false,
  step: (_label, isPossible) => {
    const wait: Effect.Effect<void> = Effect.suspend(() =>
      isPossible() ? Effect.void : Effect.andThen(Effect.yieldNow, wait)
    )
    return wait
  },
  choose: () => 0,
  violate: (problem) => {
    throw new Error(problem)
  },
  actor: (_name, effect) => effect,
  advance: () => undefined
}

/**
 * The exploration that a fiber runs in.
 *
 * @category references
 * @since 0.1.0
 */
export const Exploration = Context.Reference<Exploration>("upcall/testing/Explorer/Exploration", {
  defaultValue: () => outside
})

const always = () => true

/**
 * Marks a step: in an exploration it waits here until it is chosen.
 *
 * @category steps
 * @since 0.1.0
 */
export const step = (label: string): Effect.Effect<void> => stepWhen(label, always)

/**
 * Marks a step that can only be taken while `isPossible` holds; it must have no effect of its own. Outside of an
 * exploration it lets others run until it holds.
 *
 * @category steps
 * @since 0.1.0
 */
export const stepWhen = (label: string, isPossible: () => boolean): Effect.Effect<void> =>
  Effect.flatMap(Exploration, (exploration) => exploration.step(label, isPossible))

/**
 * Moves virtual time on, so that a deadline can run into steps that have not been taken yet; without it time moves only
 * when nothing else can. Outside of an exploration it does nothing.
 *
 * @category steps
 * @since 0.1.0
 */
export const advance = (by: Duration.Input): Effect.Effect<void> =>
  Effect.map(Exploration, (exploration) => exploration.advance(Duration.toMillis(Duration.fromInputUnsafe(by))))

/**
 * Runs actors beside each other until all of them are over, or the first of them fails. A run that hangs names those that
 * are not at their end.
 *
 * @category constructors
 * @since 0.1.0
 */
export const actors = <E = never, R = never>(
  each: Readonly<Record<string, Effect.Effect<unknown, E, R>>>
): Effect.Effect<void, E, R> =>
  Effect.flatMap(
    Exploration,
    (exploration) =>
      Effect.all(Object.entries(each).map(([name, effect]) => exploration.actor(name, effect)), {
        concurrency: "unbounded",
        discard: true
      })
  )

/**
 * A run that failed: its schedule, the steps it took in order, and what was wrong.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  readonly schedule: string
  readonly steps: ReadonlyArray<string>
  readonly problem: string
}

/**
 * What came of an exploration: how many different schedules were run, the last of which may have failed, and whether
 * these were all that there are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly schedules: number
  readonly isComplete: boolean
  readonly failure: Failure | undefined
}

/**
 * Bounds of an exploration. `limit`: the most schedules, default 1,000,000. `maxSteps`: the most steps of one run before
 * it counts as a hang, default 10,000.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly limit?: number
  readonly maxSteps?: number
}

const TURNS_BETWEEN_STEPS = 100_000
const IDLE_TIMERS = 1000
// Some ten milliseconds of the host at the usual length of a run.
const RUNS_PER_TURN = 32

const boundsOf = (options: Options): Bounds => ({
  steps: options.maxSteps ?? 10_000,
  turns: TURNS_BETWEEN_STEPS,
  timers: IDLE_TIMERS
})

/** Runs the scenario once; `pick` chooses wherever there are alternatives. */
const runOnce = <A, E, R>(
  scenario: Effect.Effect<A, E, R>,
  context: Context.Context<R>,
  pick: (alternatives: number, at: number) => number,
  bounds: Bounds
): Outcome => {
  const run = new Run(pick, bounds)
  const exploration: Exploration = {
    isExploring: true,
    step: (label, isPossible) => run.step(label, isPossible),
    choose: (alternatives) => run.choose(alternatives),
    violate: (problem) => run.violate(problem),
    actor: (name, effect) => run.actor(name, effect),
    advance: (ms) => run.time.moveTo(run.time.now + ms)
  }
  return run.to(scenario, Context.add(context, Exploration, exploration))
}

const failureOf = ({ choices, problem, steps }: Outcome): Failure | undefined =>
  problem === undefined ? undefined : { schedule: Schedule.print(choices), steps, problem }

/** The choices of the run after this one in depth-first order; `undefined` after the last. */
const nextPrefix = ({ choices, widths }: Outcome): ReadonlyArray<number> | undefined => {
  const at = choices.findLastIndex((choice, i) => choice + 1 < widths[i]!)
  return at < 0 ? undefined : [...choices.slice(0, at), choices[at]! + 1]
}

/** What differs from the run before, where nothing may: the choices up to the one that was changed. */
const nondeterminism = (prefix: ReadonlyArray<number>, before: Outcome, run: Outcome): string | undefined => {
  if (run.choices.length < prefix.length && run.problem === undefined) return "a run ended before its schedule did"
  const at = prefix.findIndex((_, i) => i < run.widths.length && run.widths[i] !== before.widths[i])
  return at < 0
    ? undefined
    : `choice ${at + 1} had ${before.widths[at]} alternatives in one run and ${run.widths[at]} in the next`
}

/**
 * Runs a scenario under every schedule there is, depth first, up to the first that fails or the limit. The scenario's
 * layers are built anew in every run.
 *
 * @category explorations
 * @since 0.1.0
 */
export const explore = <A, E, R>(
  scenario: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<Report, never, R> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<R>()
    const bounds = boundsOf(options)
    const limit = options.limit ?? 1_000_000
    let prefix: ReadonlyArray<number> | undefined = []
    let before: Outcome | undefined
    let schedules = 0
    while (prefix !== undefined && schedules < limit) {
      if (schedules % RUNS_PER_TURN === 0) yield* Effect.yieldNow
      const chosen: ReadonlyArray<number> = prefix
      const run: Outcome = runOnce(scenario, context, (_alternatives, at) => chosen[at] ?? 0, bounds)
      schedules++
      const changed = before === undefined ? undefined : nondeterminism(chosen, before, run)
      if (changed !== undefined) {
        const problem = `the scenario is not the same from run to run: ${changed}`
        return { schedules, isComplete: false, failure: failureOf({ ...run, problem }) }
      }
      // The search is built to go forward only. A schedule that was run twice would make the count a lie.
      if (before !== undefined && !Schedule.isBefore(before.choices, run.choices)) {
        return yield* Effect.die(new Error(`schedule ${Schedule.print(run.choices)} was explored twice`))
      }
      if (run.problem !== undefined) return { schedules, isComplete: false, failure: failureOf(run) }
      before = run
      prefix = nextPrefix(run)
    }
    return { schedules, isComplete: prefix === undefined, failure: undefined }
  })

/**
 * Runs a scenario under `schedules` random schedules, up to the first that fails: for those with too many to run them
 * all. The same seed gives the same schedules. The report counts those that differ.
 *
 * @category explorations
 * @since 0.1.0
 */
export const random = <A, E, R>(
  scenario: Effect.Effect<A, E, R>,
  options: Options & { readonly seed: number; readonly schedules: number }
): Effect.Effect<Report, never, R> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<R>()
    const bounds = boundsOf(options)
    const next = seededRandom(options.seed)
    const seen = new Set<string>()
    for (let runs = 0; runs < options.schedules && seen.size < (options.limit ?? Infinity); runs++) {
      if (runs % RUNS_PER_TURN === 0) yield* Effect.yieldNow
      const run = runOnce(scenario, context, (alternatives) => (next() >>> 0) % alternatives, bounds)
      seen.add(Schedule.print(run.choices))
      if (run.problem !== undefined) return { schedules: seen.size, isComplete: false, failure: failureOf(run) }
    }
    return { schedules: seen.size, isComplete: false, failure: undefined }
  })

/**
 * Runs a scenario under one schedule, as a failure prints it. After its end the first alternative is chosen each time.
 *
 * @category explorations
 * @since 0.1.0
 */
export const replay = <A, E, R>(
  scenario: Effect.Effect<A, E, R>,
  schedule: string,
  options: Options = {}
): Effect.Effect<Report, never, R> =>
  Effect.map(Effect.context<R>(), (context) => {
    const choices = Schedule.parse(schedule)
    if (choices === undefined) {
      const problem = `"${schedule}" is no schedule: digits, letters a to z, and numbers in parentheses`
      return { schedules: 0, isComplete: false, failure: { schedule, steps: [], problem } }
    }
    const run = runOnce(scenario, context, (_alternatives, at) => choices[at] ?? 0, boundsOf(options))
    const fits = run.choices.length >= choices.length
    const problem = run.problem ??
      (fits ? undefined : "the schedule does not fit the scenario: the run ended before it")
    return { schedules: 1, isComplete: false, failure: failureOf({ ...run, problem }) }
  })

/**
 * A failure as text: the problem, the steps in order, one a line, and how to run it again.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (failure: Failure): string => {
  const width = String(failure.steps.length).length
  return [
    failure.problem,
    ...failure.steps.map((label, i) => `  ${String(i + 1).padStart(width)}. ${label}`),
    `replay: Explorer.replay(scenario, "${failure.schedule}")`
  ].join("\n")
}
