/** Generators that the laws with slots by hand share: of cases, and of the steps that they are made of. */
import * as Generator from "../Generator.ts"
import type { Subject } from "../Law.ts"
import { anyAnswer, anyRequest } from "./requests.ts"
import type { Step } from "./SlotSteps.ts"

/** Steps on the slots of one vCPU or two. */
export const slotCases = <S>(
  { profile }: Pick<Subject, "profile">,
  stepOf: (vcpus: number) => Generator.Generator<S>
): Generator.Generator<{ readonly vcpus: number; readonly steps: ReadonlyArray<S> }> =>
  Generator.flatMap(
    Generator.integer(1, Math.min(2, profile.maxVcpus)),
    (vcpus) => Generator.map(Generator.array(stepOf(vcpus), { maxLength: 40 }), (steps) => ({ vcpus, steps }))
  )

/** The guest asks, in one of these slots. */
export const submits = (slot: Generator.Generator<number>): Generator.Generator<Step> =>
  Generator.map(
    Generator.all({ slot, request: anyRequest, isPolled: Generator.boolean }),
    (chosen): Step => ({ _tag: "Submit", ...chosen })
  )

/** A handle as steps name it, by how many there were after it. */
export const newest = Generator.integer(0, 3)

/** A step that gives any value by a handle. */
export const valued = (_tag: "Answer" | "Complete" | "Reply"): Generator.Generator<Step> =>
  Generator.map(Generator.all({ newest, value: anyAnswer }), (chosen): Step => ({ _tag, ...chosen }))
