/** Law 8. Ranges of a case are short and close to each other, and so most accesses meet an edge. */
import * as Effect from "effect/Effect"
import * as Generator from "../Generator.ts"
import type { Operation } from "../GuestProgram.ts"
import * as Law from "../Law.ts"
import * as ProgramCase from "./ProgramCase.ts"

/** One access a time, and what it read: nothing that hides which client answered. */
const plainly = (operations: ReadonlyArray<Operation>): ReadonlyArray<Operation> =>
  operations.flatMap((operation): ReadonlyArray<Operation> => {
    switch (operation._tag) {
      case "Load":
        return [operation, operation.size === 8 ? { _tag: "Keep", size: 8 } : { _tag: "Keep" }]
      case "PortIn":
      case "PciRead":
        return [operation, { _tag: "Keep" }]
      case "PortOut":
      case "Store":
      case "PciWrite":
        return [operation]
      case "Loop":
        return plainly(operation.body)
      default:
        return []
    }
  })

export const wholeAccess = Law.make<ProgramCase.ProgramCase>({
  number: 8,
  title: "an access goes, whole, to the client that owns all of it, or else to the default client",
  cases: (subject) =>
    Generator.map(ProgramCase.cases(subject, { maxLength: 16, maxVcpus: 1 }), ({ programs, world }) => ({
      world,
      programs: programs.map(plainly)
    })),
  show: ProgramCase.show,
  holds: (value) =>
    Effect.flatMap(ProgramCase.run(value), (seen) => Law.holdsUnless(ProgramCase.problemOf(value, seen)))
})
