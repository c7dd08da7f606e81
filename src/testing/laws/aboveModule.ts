/**
 * Laws on a hypervisor that a kernel's module stands before, with this program as its default client. The module does
 * half of the slot protocol: a law that plays the hypervisor on a page would have to play the module too.
 */
import * as Generator from "../Generator.ts"
import type { Subject } from "../Law.ts"

export const isAboveModule = ({ profile }: Pick<Subject, "profile">): boolean =>
  profile.dispatchRole === "DefaultClient"

/** Why a law of slots filled by hand cannot be tried there. */
export const noPageByHand = (subject: Subject): string | undefined =>
  isAboveModule(subject)
    ? "the law plays the hypervisor on a page, and a kernel's module moves the slots there"
    : undefined

/** Cases of both kinds, or there those of guests alone. */
export const guestsAlone = <A>(
  subject: Subject,
  byHand: Generator.Generator<A>,
  guests: Generator.Generator<A>
): Generator.Generator<A> => isAboveModule(subject) ? guests : Generator.oneOf<A>(byHand, guests)
