/**
 * A law of the protocol: a property that holds on every hypervisor, with what is needed to try it on any layer, to
 * shrink what breaks it, and to replay that.
 *
 * `Laws` has the nineteen laws themselves and registers them with vitest; this module runs a law without a test runner.
 *
 * **Example** (One law on the simulated hypervisor)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as Generator from "upcall/testing/Generator"
 * import * as Law from "upcall/testing/Law"
 * import { VirtualMachine } from "upcall/services/VirtualMachine"
 *
 * const law = Law.make({
 *   number: 0,
 *   title: "a VM has the memory that it was created with",
 *   cases: () => Generator.integer(1, 16),
 *   show: (pages) => `${pages} pages`,
 *   holds: (pages) =>
 *     Effect.gen(function*() {
 *       const machines = yield* VirtualMachine
 *       const vm = yield* machines.create({ memoryBytes: pages * 4096 })
 *       const bytes = yield* vm.memory.read(0, pages * 4096)
 *       if (bytes.some((byte) => byte !== 0)) return yield* Law.broken("its memory is not zero")
 *     })
 * })
 * const outcome = await Effect.runPromise(Law.check(law, "Simulated", Simulated.layer, { runs: 20 }))
 * console.log(outcome)
 * // => { _tag: 'Held', cases: 20 }
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { HypercallGate } from "../services/HypercallGate.ts"
import type { Hypervisor } from "../services/Hypervisor.ts"
import { ServiceMemory } from "../services/ServiceMemory.ts"
import * as VirtualMachine from "../services/VirtualMachine.ts"
import { Adversaries } from "./adversaries/Adversary.ts"
import * as Generator from "./Generator.ts"
import { MachinesOfSubject } from "./laws/over.ts"
import * as SlotHistory from "./SlotHistory.ts"

/**
 * What a law is tried on: a hypervisor, with `VirtualMachine` over it and its pages watched. Capabilities are looked up
 * in `context` (`Context.getOption(subject.context, Resume)`), for a law says what it skips without them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subject {
  readonly name: string
  readonly profile: HypervisorProfile
  readonly context: Context.Context<Hypervisor | VirtualMachine.VirtualMachine>
  /** What happened on I/O request pages since the case began. */
  readonly history: SlotHistory.SlotHistory
}

/**
 * A case for which a law does not hold.
 *
 * @category errors
 * @since 0.1.0
 */
export class LawBroken extends Schema.TaggedError<LawBroken>()("LawBroken", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

/**
 * Ends a case: the law does not hold for it, and this is why.
 *
 * @category constructors
 * @since 0.1.0
 */
export const broken = (problem: string): Effect.Effect<never, LawBroken> => Effect.fail(new LawBroken({ problem }))

/**
 * Ends a case if there is a problem with it; the law holds for it if there is none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const holdsUnless = (problem: string | undefined): Effect.Effect<void, LawBroken> =>
  problem === undefined ? Effect.void : broken(problem)

/**
 * What a law says and how a case of it is made, shown and tried. `holds` gets a scope of its own for each case, and
 * fails when the law does not hold; any other failure and any defect count as that too.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition<A> {
  readonly number: number
  readonly title: string
  /** Why the law cannot be tried on this hypervisor; `undefined` when it can. */
  readonly skip?: (subject: Subject) => string | undefined
  readonly cases: (subject: Subject) => Generator.Generator<A>
  readonly holds: (
    value: A,
    subject: Subject
  ) => Effect.Effect<void, { readonly message: string }, Hypervisor | VirtualMachine.VirtualMachine | Scope.Scope>
  /** A case for people: a program as a list, a sequence with its parameters. */
  readonly show: (value: A) => string
}

/**
 * A law, whatever its cases are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Law {
  readonly number: number
  readonly title: string
  /** Tries the law on a subject that is ready. */
  readonly tryOn: (subject: Subject, options: CheckOptions) => Effect.Effect<Outcome>
}

/**
 * - `runs`: cases, default 100.
 * - `seed`: the same cases for the same seed; default 1.
 * - `replay`: the token of an earlier failure, in place of cases.
 * - `patience`: a case that takes longer than this (real time) counts as one that never ends; default 20 seconds. Only
 *   a law that is broken waits for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CheckOptions {
  readonly runs?: number | undefined
  readonly seed?: number | string | undefined
  readonly replay?: string | undefined
  readonly patience?: Duration.Input | undefined
}

/**
 * A law that does not hold: the smallest case that was found, as text; the slots' history of it, as a table; what
 * adversaries did in it, a line each; and the token that replays it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Broken {
  readonly _tag: "Broken"
  readonly cases: number
  readonly problem: string
  readonly smallest: string
  readonly shrinks: number
  readonly seed: number | string
  readonly history: string
  readonly faults: string
  readonly replay: string
}

/**
 * What came of trying a law.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome =
  | { readonly _tag: "Held"; readonly cases: number }
  | { readonly _tag: "Skipped"; readonly reason: string }
  | Broken

const DEFAULT_PATIENCE = Duration.seconds(20)
const PATIENCE_WHILE_SHRINKING = Duration.seconds(1)
const PATIENCE_WITH_CLEANUP = Duration.seconds(1)
const MAX_SHRINKS = 400
// How long the lists of a case get, where its generator allows that.
const CASE_SIZE = 30

/** Any failure of a case as the one way in which it is broken. */
const settle = (exit: Exit.Exit<void, { readonly message: string }>): Effect.Effect<void, LawBroken> => {
  if (Exit.isSuccess(exit)) return Effect.void
  const { cause } = exit
  const failure = Cause.findErrorOption(cause)
  return broken(failure._tag === "Some" ? failure.value.message : Cause.pretty(cause))
}

/** The end of a case; one that does not even end when it is interrupted is left where it stands. */
const within = (patience: Duration.Input) =>
<R>(
  attempt: Effect.Effect<void, { readonly message: string }, R>
): Effect.Effect<Exit.Exit<void, { readonly message: string }>, never, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDetach(attempt, { startImmediately: true }), (fiber) => {
      const ended = Fiber.await(fiber)
      const leave = Effect.suspend(() => {
        fiber.interruptUnsafe()
        return Effect.interruptible(Effect.timeoutOption(ended, PATIENCE_WITH_CLEANUP))
      })
      const problem = `it did not end within ${Duration.format(Duration.fromInputUnsafe(patience))}`
      const outcome = Effect.timeoutOrElse(ended, {
        duration: patience,
        orElse: () => Effect.as(leave, Exit.fail(new LawBroken({ problem })))
      })
      return Effect.onInterrupt(restore(outcome), () => leave)
    })
  )

const faultsIn = ({ context }: Subject): Effect.Effect<string> =>
  Effect.map(
    Effect.forEach(Context.get(context, Adversaries), ({ report }) => report),
    (reports) => reports.filter((report) => report !== "").join("\n")
  )

/**
 * Makes a law.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A>(definition: Definition<A>): Law => {
  const { cases, holds, number, show, skip, title } = definition

  const tryOne = (value: A, subject: Subject, patience: Duration.Input): Effect.Effect<void, LawBroken> =>
    Effect.suspend(() => {
      subject.history.clear()
      // From their first fault on, or a case would not be broken by itself what it was broken by among others.
      const adversaries = Context.get(subject.context, Adversaries)
      return Effect.andThen(
        Effect.forEach(adversaries, ({ restart }) => restart, { discard: true }),
        Effect.scoped(Effect.suspend(() => holds(value, subject)))
      ).pipe(
        Effect.provideContext(subject.context),
        within(patience),
        Effect.flatMap(settle)
      )
    })

  const tryOn: Law["tryOn"] = (subject, options) =>
    Effect.gen(function*() {
      const reason = skip?.(subject)
      if (reason !== undefined) return { _tag: "Skipped", reason }
      const { patience = DEFAULT_PATIENCE, runs = 100, seed = 1 } = options
      let isShrinking = false
      const result = yield* Generator.check(
        cases(subject),
        (value) =>
          tryOne(value, subject, isShrinking ? PATIENCE_WHILE_SHRINKING : patience).pipe(
            Effect.tapError(() => Effect.sync(() => isShrinking = true)),
            Effect.as(true)
          ),
        { runs, seed, size: CASE_SIZE, replay: options.replay, maxShrinks: MAX_SHRINKS, concurrency: 1 }
      ).pipe(
        Effect.catchDefect((defect) =>
          options.replay === undefined ? Effect.die(defect) : Effect.succeed({ _tag: "BadToken" } as const)
        )
      )
      switch (result._tag) {
        case "Passed":
          return { _tag: "Held", cases: result.runs }
        case "Falsified": {
          // Once more, for its own history: the search went on behind it with cases that held.
          const again = yield* Effect.result(tryOne(result.shrunkInput, subject, PATIENCE_WHILE_SHRINKING))
          const first = result.failure._tag === "PropertyError" ? result.failure.error.problem : "it does not hold"
          return {
            _tag: "Broken",
            cases: result.runs,
            problem: again._tag === "Failure"
              ? again.failure.problem
              : `${first} (not every time: tried again, it held)`,
            smallest: show(result.shrunkInput),
            shrinks: result.shrinks,
            seed,
            history: SlotHistory.format(subject.history.events()),
            faults: yield* faultsIn(subject),
            replay: result.replay
          }
        }
        case "BadToken":
        case "Exhausted":
        case "ReplayMismatch":
          return {
            _tag: "Broken",
            cases: 0,
            problem: result._tag === "BadToken"
              ? "this is no token of a failure of this law; give it whole, as it was printed"
              : Generator.formatFailure(result) ?? result._tag,
            smallest: "(no case)",
            shrinks: 0,
            seed,
            history: "",
            faults: "",
            replay: options.replay ?? ""
          }
      }
    })

  return { number, title, tryOn }
}

/**
 * Makes a hypervisor layer ready for laws, for as long as the scope lives. `machines` stands over it, for one with
 * options (default: `VirtualMachine.layer`).
 *
 * @category constructors
 * @since 0.1.0
 */
export const subject = <R, E>(
  name: string,
  hypervisor: Layer.Layer<R | Hypervisor, E>,
  machines: Layer.Layer<VirtualMachine.VirtualMachine, never, Hypervisor> = VirtualMachine.layer
): Effect.Effect<Subject, E, Scope.Scope> =>
  Effect.gen(function*() {
    const below = yield* Layer.build(Layer.fresh(hypervisor))
    const { history, memory } = SlotHistory.watch(Context.get(below, ServiceMemory))
    const watched = Context.add(below, ServiceMemory, memory)
    const above = yield* Layer.build(Layer.fresh(machines)).pipe(Effect.provideContext(watched))
    return {
      name,
      profile: Context.get(below, HypercallGate).profile,
      context: Context.merge(watched, above).pipe(Context.add(MachinesOfSubject, machines)),
      history
    }
  })

/**
 * Tries a law on a hypervisor layer, which is built for it alone.
 *
 * @category checking
 * @since 0.1.0
 */
export const check = <R, E>(
  law: Law,
  name: string,
  hypervisor: Layer.Layer<R | Hypervisor, E>,
  options: CheckOptions & {
    readonly machines?: Layer.Layer<VirtualMachine.VirtualMachine, never, Hypervisor> | undefined
  } = {}
): Effect.Effect<Outcome, E> =>
  Effect.scoped(
    Effect.flatMap(subject(name, hypervisor, options.machines), (ready) => law.tryOn(ready, options))
  )

/**
 * A broken law for people. `replayLine` is the one line that replays it.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (law: Law, subjectName: string, outcome: Broken, replayLine: string): string =>
  [
    `law ${law.number} does not hold on ${subjectName}: ${law.title}`,
    ...outcome.problem.split("\n").map((line) => `  ${line}`),
    "",
    `the smallest case (case ${outcome.cases} of seed ${outcome.seed}, after ${outcome.shrinks} shrinks):`,
    ...outcome.smallest.split("\n").map((line) => `  ${line}`),
    "",
    "its slots:",
    ...outcome.history.split("\n").map((line) => `  ${line}`),
    "",
    ...outcome.faults === "" ? [] : ["its adversaries:", ...outcome.faults.split("\n").map((line) => `  ${line}`), ""],
    "replay it:",
    `  ${replayLine}`
  ].join("\n")
