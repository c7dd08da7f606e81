/**
 * Chance from a seed, one stream of it for each VM, so that what one VM suffers does not depend on what the others do
 * meanwhile.
 */
import * as Schema from "effect/Schema"
import { MAX_SEED, MIN_SEED } from "../../layers/model/options.ts"
import { seededRandom } from "../../layers/model/seededRandom.ts"

const WORDS = 2 ** 32
// Seeds that differ in a bit begin alike: xorshift takes some steps to spread it.
const WARM_UP = 16

export class Chance {
  private readonly random: () => number

  constructor(seed: number, stream: number) {
    this.random = seededRandom(Math.imul(seed, 0x9e37_79b1) ^ Math.imul(stream + 1, 0x85eb_ca6b))
    for (let i = 0; i < WARM_UP; i++) this.random()
  }

  /** 32 bits. */
  word(): number {
    return this.random() >>> 0
  }

  /** An integer from 0 to `end` - 1. */
  below(end: number): number {
    return Math.floor(this.word() / WORDS * end)
  }

  happens(rate: number): boolean {
    return this.word() < rate * WORDS
  }

  /** One of the values, which must not be none. */
  pick<A>(values: ReadonlyArray<A>): A {
    return values[this.below(values.length)]!
  }

  /** One of the values, which must not be none, each as often as its weight says. */
  pickWeighted<A>(values: ReadonlyArray<Weighted<A>>): A {
    let left = this.word() / WORDS * values.reduce((sum, { weight }) => sum + weight, 0)
    for (const { value, weight } of values) {
      left -= weight
      if (left < 0) return value
    }
    return values.at(-1)!.value
  }
}

/** A stream of chance per VM, and one (-1) for what concerns none. */
export class Chances {
  private readonly seed: number
  private streams = new Map<number, Chance>()

  constructor(seed: number) {
    this.seed = seed
  }

  of(vmId: number | undefined): Chance {
    const key = vmId ?? -1
    let stream = this.streams.get(key)
    if (stream === undefined) {
      stream = new Chance(this.seed, key)
      this.streams.set(key, stream)
    }
    return stream
  }

  restart(): void {
    this.streams = new Map()
  }
}

export interface Weighted<A> {
  readonly value: A
  readonly weight: number
}

/** Weights by name as a list, without those that never happen. */
export const weighted = <A extends string>(weights: Readonly<Partial<Record<A, number>>>): Array<Weighted<A>> =>
  Object.entries<number | undefined>(weights).flatMap(([value, weight = 0]) =>
    weight > 0 ? [{ value: value as A, weight }] : []
  )

/** Seeds of adversaries: -2^31 to 2^32 - 1. */
export const Seed = Schema.Int.check(Schema.isBetween({ minimum: MIN_SEED, maximum: MAX_SEED }))

/** How often something happens: 0 never, 1 always. */
export const Rate = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

const Weight = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))

/** Weights of some of the names; those that are not named never happen. One at least must happen. */
export const weightsOf = <const Names extends ReadonlyArray<string>>(names: Names) =>
  Schema.Struct(
    Object.fromEntries(names.map((name) => [name, Schema.optionalKey(Weight)])) as {
      readonly [Name in Names[number]]: Schema.optionalKey<typeof Weight>
    }
  ).check(
    Schema.makeFilter((weights) =>
      Object.values<number | undefined>(weights).some((weight = 0) => weight > 0) || "no weight is above 0"
    )
  )
