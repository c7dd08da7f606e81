/** Law 3: completion belongs to whoever holds the request. */
import { MAX_VCPUS } from "../../domain/Limits.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import { noPageByHand } from "./aboveModule.ts"
import { newest, slotCases, submits, valued } from "./slotCases.ts"
import { holds, show, type SlotCase, type Step } from "./SlotSteps.ts"

/** What keeps a request on its way comes more often, so that many are taken, lost and taken again. */
const stepOf = (vcpus: number): Generator.Generator<Step> => {
  const slot = Generator.integer(0, vcpus - 1)
  const submit = submits(slot)
  const at = (_tag: "Look" | "Take") => Generator.map(slot, (chosen): Step => ({ _tag, slot: chosen }))
  return Generator.oneOf<Step>(
    submit,
    submit,
    submit,
    at("Take"),
    at("Take"),
    at("Take"),
    valued("Complete"),
    valued("Complete"),
    valued("Complete"),
    at("Look"),
    Generator.map(newest, (back): Step => ({ _tag: "Claim", newest: back })),
    valued("Answer"),
    Generator.map(
      Generator.oneOf<number | undefined>(slot, Generator.constant(undefined)),
      (chosen): Step => ({ _tag: "Upcall", slot: chosen })
    ),
    valued("Reply"),
    Generator.oneOf<Step>(
      Generator.constant({ _tag: "Reset" }),
      Generator.map(Generator.elementOf([vcpus, MAX_VCPUS, -1, 0.5]), (none): Step => ({ _tag: "Look", slot: none })),
      Generator.constant({ _tag: "Leave" })
    )
  )
}

export const oneCompletion = Law.make<SlotCase>({
  number: 3,
  title: "only its holder completes a request, once, and what is refused changes nothing",
  skip: noPageByHand,
  cases: (subject) =>
    Generator.map(
      Generator.all({ isOfVm: Generator.boolean, slots: slotCases(subject, stepOf) }),
      ({ isOfVm, slots }) => ({ isOfVm, ...slots })
    ),
  show,
  holds
})
