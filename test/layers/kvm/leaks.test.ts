/** What VMs and whole hypervisors leave in the process: nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { until } from "../../support/machines.ts"
import { onKvm, problem, skipped } from "./capabilities/guests.ts"
import * as CountingGuest from "./support/CountingGuest.ts"
import { cycles } from "./support/cycles.ts"
import { differences, holdings } from "./support/resources.ts"

const CYCLES = 200
const LAYERS = 10

describe.skipIf(problem !== undefined)(`leaks on KVM${skipped}`, () => {
  for (const placement of ["Inline", "Worker"] as const) {
    it.live(`of ${CYCLES} VMs, ${placement}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* onKvm({ placement })(cycles(CYCLES)), [])
      }))

    it.live(`of ${LAYERS} hypervisors whose VM still runs when they go, ${placement}`, () =>
      Effect.gen(function*() {
        const once = onKvm({ placement })(Effect.gen(function*() {
          const { device, vm } = yield* CountingGuest.make(2)
          yield* vm.start
          yield* until(() => device.isUnderLoad)
        }))
        yield* once
        const before = holdings()
        for (let layers = 0; layers < LAYERS; layers++) yield* once
        assert.deepStrictEqual(differences(before, holdings()), [])
      }))
  }
})
