import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ClientOptions, make, type WorldOptions } from "../World.ts"

export interface Scenario {
  readonly name: string
  readonly about: string
  readonly run: Effect.Effect<void, unknown>
  /** How many random schedules are run of one that has too many to run them all. */
  readonly random: number | undefined
}

/** A scenario that is run under every schedule, in a scope of its own. */
export const scenario = (
  name: string,
  about: string,
  run: Effect.Effect<void, unknown, Scope.Scope>
): Scenario => ({ name, about, run: Effect.scoped(run), random: undefined })

/** A scenario with too many schedules for that. */
export const randomScenario = (
  name: string,
  about: string,
  schedules: number,
  run: Effect.Effect<void, unknown, Scope.Scope>
): Scenario => ({ ...scenario(name, about, run), random: schedules })

/** Where the ports of the clients begin; each has sixteen. */
export const A = 0x100
export const B = 0x200
export const C = 0x300

const at = (name: string, first: number): ClientOptions => ({ name, first, last: first + 0xf })

/** Clients that answer at once. */
export const quickA = at("A", A)
export const quickB = at("B", B)

/** Clients that take their time. */
export const slowA: ClientOptions = { ...quickA, isSlow: true }
export const slowB: ClientOptions = { ...quickB, isSlow: true }

/** A world with both of these, and `moreOfA`. */
export const slowWorld = Effect.fnUntraced(function*(
  options: WorldOptions,
  moreOfA: Partial<ClientOptions> = {}
) {
  const world = yield* make(options)
  const a = yield* world.guest.client({ ...slowA, ...moreOfA })
  const b = yield* world.guest.client(slowB)
  return { ...world, a, b }
})
