/** `npm run kvm:soak` for as many pauses as a test has time for. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { onKvm, problem, skipped } from "./capabilities/guests.ts"
import { soak } from "./support/soak.ts"

const PAUSES = 100

describe.skipIf(problem !== undefined)(`two VMs of four vCPUs that are paused all the time${skipped}`, () => {
  for (const placement of ["Inline", "Worker"] as const) {
    for (const interruptController of ["Kernel", "None"] as const) {
      it.live(`${placement}, interrupt controller ${interruptController}: no request is lost`, () =>
        onKvm({ placement, interruptController })(Effect.gen(function*() {
          const soaked = yield* soak({ vms: 2, vcpus: 4, betweenMs: 5, goesOn: (pauses) => pauses < PAUSES })
          for (const { end, problems, requests } of soaked) {
            assert.deepStrictEqual(problems, [])
            assert.strictEqual(end, "Halted")
            assert.isTrue(requests.every((count) => count > 0), requests.join())
          }
        })))
    }
  }
})
