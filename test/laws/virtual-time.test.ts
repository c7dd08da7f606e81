/**
 * What the laws say of layers whose time is counted: there nothing that another VM does costs guest time, and the whole
 * order of requests is the same in every run.
 */
import { describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import * as Law from "../../src/testing/Law.ts"
import * as ProgramCase from "../../src/testing/laws/ProgramCase.ts"
import * as Trace from "../../src/testing/Trace.ts"

/** What a run comes to, to the bit: the order of all requests, and the guest's time at its end. */
const runOnce = (value: ProgramCase.ProgramCase) =>
  Effect.scoped(Effect.gen(function*() {
    const { observe, vm } = yield* ProgramCase.prepare(value)
    const running = yield* vm.start
    const { entries } = yield* observe(yield* running.ended)
    return { entries, nanos: vm.machine.time.clock.monotonicTimeNanosUnsafe() }
  }))

type Run = Effect.Success<ReturnType<typeof runOnce>>

const parting = (before: Run, after: Run): string | undefined => {
  const index = Trace.firstDifference(before.entries, after.entries)
  if (index !== undefined) return `the traces part at entry ${index}`
  return before.nanos === after.nanos ? undefined : `it took ${before.nanos} ns, and then ${after.nanos}`
}

const reproducible = Law.make<ProgramCase.ProgramCase>({
  number: 16,
  title: "the same seed and program give the same run, to the bit",
  cases: (subject) => ProgramCase.cases(subject),
  show: ProgramCase.show,
  holds: (value) =>
    Effect.gen(function*() {
      yield* Law.holdsUnless(parting(yield* runOnce(value), yield* runOnce(value)))
    })
})

const undelayed = Law.make<ProgramCase.ProgramCase>({
  number: 5,
  title: "a VM whose requests are stuck costs another no guest time",
  cases: (subject) => ProgramCase.cases(subject),
  show: ProgramCase.show,
  holds: (value) =>
    Effect.scoped(Effect.gen(function*() {
      const alone = yield* runOnce(value)
      const trouble = yield* ProgramCase.prepare(value, () => Effect.never)
      yield* trouble.vm.start
      yield* Law.holdsUnless(parting(alone, yield* runOnce(value)))
    }))
})

const holdsOn = <R, E>(name: string, layer: Layer.Layer<R | Hypervisor, E>, runs: number) => {
  describe(name, () => {
    for (const law of [undelayed, reproducible]) {
      it.live(law.title, () =>
        Effect.gen(function*() {
          const outcome = yield* Law.check(law, name, layer, { runs })
          if (outcome._tag === "Broken") return yield* Effect.die(Law.format(law, name, outcome, "run this test"))
        }))
    }
  })
}

holdsOn("Simulated", Simulated.layer, 300)
holdsOn("Simulated, polling for completion", Simulated.layerWith({ completion: "Polling" }), 300)
holdsOn("Emulated", Emulated.layerWith({ clock: "Virtual" }), 40)
