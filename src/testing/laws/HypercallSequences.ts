/** Law 17, of hypercalls. */
import * as Effect from "effect/Effect"
import { HypercallGate } from "../../services/HypercallGate.ts"
import * as HypercallSequence from "../HypercallSequence.ts"
import * as Law from "../Law.ts"
import { isAboveModule } from "./aboveModule.ts"

// Learning takes some two hundred hypercalls, and a hypervisor's answer does not change.
const known = new WeakMap<HypercallGate["Service"], HypercallSequence.Abilities>()

const abilitiesOf = Effect.gen(function*() {
  const gate = yield* HypercallGate
  const before = known.get(gate)
  if (before !== undefined) return before
  const learnt = yield* HypercallSequence.learn
  known.set(gate, learnt)
  return learnt
})

export const hypercallSequences = Law.make<HypercallSequence.HypercallSequence>({
  number: 17,
  title: "any sequence of hypercalls, legal or not, gives the model's results and states; a refusal changes nothing",
  skip: (subject) =>
    isAboveModule(subject)
      ? "a kernel's module makes hypercalls of its own, and makes none of some of ours"
      : undefined,
  cases: ({ context }) => HypercallSequence.sequences(HypercallSequence.declared(context)),
  show: HypercallSequence.format,
  holds: (calls) =>
    abilitiesOf.pipe(
      Effect.flatMap((abilities) => HypercallSequence.firstDifference(calls, abilities)),
      Effect.flatMap(Law.holdsUnless)
    )
})
