/**
 * The nineteen laws of the protocol, as tests that vitest runs on any hypervisor layer: Upcall's own and yours.
 *
 * This is the one module of Upcall that imports vitest, which is an optional peer dependency for its sake.
 *
 * **Example** (Every law on a hypervisor of one's own, in a test file)
 *
 * ```ts
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as Laws from "upcall/testing/Laws"
 *
 * Laws.suite("my hypervisor", Simulated.layer, { runs: 200 })
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { assert, describe, it } from "vitest"
import type { Hypervisor } from "../services/Hypervisor.ts"
import type { VirtualMachine } from "../services/VirtualMachine.ts"
import * as Law from "./Law.ts"
import { laws } from "./laws/all.ts"

export {
  /**
   * The laws, by number.
   *
   * @category laws
   * @since 0.1.0
   */
  laws
} from "./laws/all.ts"

/**
 * - `runs`: cases of each law, default 100.
 * - `seed`: default 1, so that every run tries the same cases.
 * - `only`: numbers of the laws to register; default all.
 * - `except`: laws that cannot hold here, each with the reason, which is shown as that of the skipped test.
 * - `machines`: how VMs are made, for one with options (`VirtualMachine.layerWith`).
 * - `replay`: the token of a failure, together with `only`.
 * - `timeout`: of one law, real time; default 5 minutes.
 *
 * @category models
 * @since 0.1.0
 */
export interface SuiteOptions {
  readonly runs?: number
  readonly seed?: number | string
  readonly only?: ReadonlyArray<number>
  readonly except?: Readonly<Record<number, string>>
  readonly machines?: Layer.Layer<VirtualMachine, never, Hypervisor>
  readonly replay?: string
  readonly timeout?: Duration.Input
}

/**
 * Registers the laws with vitest, one test each, for a hypervisor layer. A law that needs what the layer does not have
 * is skipped with the reason. A law that does not hold fails with the smallest case, its slots, and how to replay it.
 *
 * @category registering
 * @since 0.1.0
 */
export const suite = <R, E>(
  name: string,
  hypervisor: Layer.Layer<R | Hypervisor, E>,
  options: SuiteOptions = {}
): void => {
  const { except = {}, machines, only, replay, runs, seed, timeout = Duration.minutes(5) } = options
  describe(name, () => {
    for (const law of laws.filter(({ number }) => only?.includes(number) ?? true)) {
      it(`law ${law.number}: ${law.title}`, async ({ skip }) => {
        const reason = except[law.number]
        if (reason !== undefined) return skip(reason)
        const outcome = await Effect.runPromise(Law.check(law, name, hypervisor, { machines, replay, runs, seed }))
        if (outcome._tag === "Skipped") return skip(outcome.reason)
        if (outcome._tag === "Held") return
        const token = JSON.stringify(outcome.replay)
        const line = `Laws.suite(${JSON.stringify(name)}, layer, { only: [${law.number}], replay: ${token} })`
        assert.fail(Law.format(law, name, outcome, line))
      }, Duration.toMillis(Duration.fromInputUnsafe(timeout)))
    }
  })
}
