/**
 * What the adversaries have in common: a log of what they did, and a place where all that stand in one graph are known.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

/**
 * An adversary at work. `F` is what it did once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Adversary<F> {
  readonly name: string
  /** Faults so far; a property that means something checks that it is not 0. */
  readonly count: Effect.Effect<number>
  /** The last 1024 faults, oldest first. */
  readonly faults: Effect.Effect<ReadonlyArray<F>>
  /** The same faults for people, one a line. */
  readonly report: Effect.Effect<string>
  /** Does no more, until it is restarted. */
  readonly stop: Effect.Effect<void>
  /** Begins anew: the first fault of its seed or plan comes next, and the log is empty. */
  readonly restart: Effect.Effect<void>
}

/**
 * All adversaries of a graph, the lowest first, for what has to restart or to print them without knowing which there
 * are.
 *
 * @category references
 * @since 0.1.0
 */
export const Adversaries = Context.Reference<ReadonlyArray<Adversary<unknown>>>("upcall/testing/Adversaries", {
  defaultValue: () => []
})

/** A context with one more adversary in {@link Adversaries}. */
export const enlisted = (adversary: Adversary<unknown>): Effect.Effect<Context.Context<never>> =>
  Effect.map(Adversaries, (others) => Context.make(Adversaries, [...others, adversary]))

/**
 * `BadOption`: an option is not what it must be; nothing was built.
 *
 * @category errors
 * @since 0.1.0
 */
export const AdversaryErrorReason = Schema.TaggedUnion({
  BadOption: { adversary: Schema.String, problem: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type AdversaryErrorReason = typeof AdversaryErrorReason.Type

/**
 * An adversary that could not be built.
 *
 * @category errors
 * @since 0.1.0
 */
export class AdversaryError
  extends Schema.TaggedError<AdversaryError>()("AdversaryError", { reason: AdversaryErrorReason })
{
  override get message(): string {
    return `${this.reason.adversary} was given an option that is none: ${this.reason.problem}`
  }
}

const refuse = (adversary: string, problem: string) =>
  Effect.fail(new AdversaryError({ reason: { _tag: "BadOption", adversary, problem } }))

/** The options of an adversary, checked. */
export const checkOptions = <S extends Schema.Decoder<unknown>>(
  adversary: string,
  schema: S,
  options: S["Type"]
): Effect.Effect<S["Type"], AdversaryError> => {
  const decoded = Schema.decodeUnknownResult(Schema.toType(schema))(options, { onExcessProperty: "error" })
  return Result.isSuccess(decoded) ? Effect.succeed(decoded.success) : refuse(adversary, decoded.failure.message)
}

const KEPT_FAULTS = 1024

/** What an adversary writes into, and asks whether it may act. */
export class FaultLog<F> {
  isActive = true
  readonly adversary: Adversary<F>
  private kept: Array<F> = []
  private total = 0

  constructor(options: {
    readonly name: string
    readonly format: (fault: F) => string
    /** Gives back what is held when the adversary must do no more. */
    readonly onStop?: () => void
    /** Takes the seed or the plan from its beginning. */
    readonly onRestart: () => void
  }) {
    const { format, name, onRestart, onStop } = options
    this.adversary = {
      name,
      count: Effect.sync(() => this.total),
      faults: Effect.sync(() => [...this.kept]),
      report: Effect.sync(() => this.kept.map(format).join("\n")),
      stop: Effect.sync(() => {
        this.isActive = false
        onStop?.()
      }),
      restart: Effect.sync(() => {
        onStop?.()
        onRestart()
        this.kept = []
        this.total = 0
        this.isActive = true
      })
    }
  }

  add(fault: F): void {
    this.total++
    if (this.kept.length === KEPT_FAULTS) this.kept.shift()
    this.kept.push(fault)
  }
}
