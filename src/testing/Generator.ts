/**
 * Makes and combines generators of test values that shrink, and checks properties of them.
 *
 * It stands for `effect/Arbitrary`, which is unstable in Effect 4.1: this module is the only one of Upcall that imports
 * it, and what it makes goes straight into `it.prop` and `it.effect.prop` of `@effect/vitest`.
 *
 * **Example** (The smallest value for which a property does not hold)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Generator from "upcall/testing/Generator"
 *
 * const found = await Effect.runPromise(
 *   Generator.check(Generator.integer(0, 1000), (value) => value < 100, { runs: 100, seed: 1 })
 * )
 * console.log(found._tag, found._tag === "Falsified" && found.shrunkInput)
 * // => Falsified 100
 * ```
 *
 * @since 0.1.0
 */
import * as Arbitrary from "effect/Arbitrary"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * Makes values of `A`, and smaller ones of each.
 *
 * @category models
 * @since 0.1.0
 */
export type Generator<A> = Arbitrary.Arbitrary<A>

/**
 * How a property is checked: `runs` values (default 100), the same ones for the same `seed`, of a `size` that grows up
 * to this (default 10). `replay` is the token of an earlier failure.
 *
 * @category models
 * @since 0.1.0
 */
export type CheckOptions = Arbitrary.CheckOptions

/**
 * What came of a check.
 *
 * @category models
 * @since 0.1.0
 */
export type CheckResult<A, E> = Arbitrary.CheckResult<A, E>

export {
  /**
   * All of several generators at once: a tuple or a record of their values.
   *
   * @category combining
   * @since 0.1.0
   */
  all,
  /**
   * Lists, `minLength` (default 0) to `maxLength` long.
   *
   * @category combining
   * @since 0.1.0
   */
  array,
  /**
   * Always the same value.
   *
   * @category generators
   * @since 0.1.0
   */
  Constant as constant,
  /**
   * Values that pass a test. One that lets little through fails for want of values.
   *
   * @category combining
   * @since 0.1.0
   */
  filter,
  /**
   * A generator that depends on another's value.
   *
   * @category combining
   * @since 0.1.0
   */
  flatMap,
  /**
   * A failed check in words; `undefined` for one that passed.
   *
   * @category checking
   * @since 0.1.0
   */
  formatCheckFailure as formatFailure,
  /**
   * Another value from each value.
   *
   * @category combining
   * @since 0.1.0
   */
  map,
  /**
   * The values of a schema.
   *
   * @category generators
   * @since 0.1.0
   */
  schema
} from "effect/Arbitrary"

/**
 * Checks a property: looks for a value for which it is `false` or fails, and for the smallest such one.
 *
 * @category checking
 * @since 0.1.0
 */
export const check: <A, E = never, R = never>(
  generator: Generator<A>,
  property: (value: A) => boolean | Effect.Effect<boolean, E, R>,
  options?: CheckOptions
) => Effect.Effect<CheckResult<A, E>, never, R> = Arbitrary.checkEffect

/**
 * Values of a generator, the same ones for the same seed, for a test that is no property. Fails when a filter lets too
 * little through.
 *
 * @category checking
 * @since 0.1.0
 */
export const sample = <A>(
  generator: Generator<A>,
  options: { readonly count: number; readonly seed: number | string }
): Effect.Effect<ReadonlyArray<A>, Arbitrary.SampleError> => Arbitrary.sampleEffect(generator, options)

/**
 * Integers from `minimum` to `maximum`, both inclusive.
 *
 * @category generators
 * @since 0.1.0
 */
export const integer = (minimum: number, maximum: number): Generator<number> =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

/**
 * Words of `count` bits, 1 to 64.
 *
 * @category generators
 * @since 0.1.0
 */
export const bits = (count: number): Generator<bigint> =>
  Arbitrary.schema(Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: (1n << BigInt(count)) - 1n })))

/**
 * @category generators
 * @since 0.1.0
 */
export const boolean: Generator<boolean> = Arbitrary.schema(Schema.Boolean)

/**
 * One of the values, which may not be none; the first is the smallest.
 *
 * @category generators
 * @since 0.1.0
 */
export const elementOf = <A>(values: ReadonlyArray<A>): Generator<A> =>
  Arbitrary.map(integer(0, values.length - 1), (index) => values[index]!)

/**
 * One of several generators, each as often as the others; the first is the smallest.
 *
 * @category combining
 * @since 0.1.0
 */
export const oneOf = <A>(...choices: readonly [Generator<A>, ...Array<Generator<A>>]): Generator<A> =>
  Arbitrary.flatMap(integer(0, choices.length - 1), (index) => choices[index] ?? choices[0])
