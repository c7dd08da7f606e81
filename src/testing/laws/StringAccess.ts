/** Law 14. */
import * as Effect from "effect/Effect"
import * as Generator from "../Generator.ts"
import type { Operation } from "../GuestProgram.ts"
import * as Law from "../Law.ts"
import * as ProgramCase from "./ProgramCase.ts"

const MAX_COUNT = 40

/** String accesses only, some of them long: `counts` says how long, in turn. */
const strings = (operations: ReadonlyArray<Operation>, counts: ReadonlyArray<number>): ReadonlyArray<Operation> => {
  let next = 0
  const count = () => counts[next++ % counts.length]!
  return operations.flatMap((operation): ReadonlyArray<Operation> => {
    switch (operation._tag) {
      case "PortIn":
      case "StringIn":
        return [{ _tag: "StringIn", port: operation.port, size: operation.size, count: count() }]
      case "PortOut":
      case "StringOut": {
        const { port, size } = operation
        // All different, so that a wrong order shows.
        return [{
          _tag: "StringOut",
          port,
          size,
          bytes: Uint8Array.from({ length: count() * size }, (_, at) => at + 1)
        }]
      }
      default:
        return []
    }
  })
}

export const stringAccess = Law.make<ProgramCase.ProgramCase>({
  number: 14,
  title: "a repeated string access reaches the device as so many accesses of its size",
  cases: (subject) =>
    Generator.map(
      Generator.all({
        value: ProgramCase.cases(subject, { maxLength: 6, maxVcpus: 2, maxDepth: 0, pci: false }),
        counts: Generator.array(Generator.integer(1, MAX_COUNT), { minLength: 1, maxLength: 3 })
      }),
      ({ counts, value: { programs, world } }) => ({
        world,
        programs: programs.map((operations) => strings(operations, counts))
      })
    ),
  show: ProgramCase.show,
  holds: (value) =>
    Effect.flatMap(ProgramCase.run(value), (seen) => Law.holdsUnless(ProgramCase.problemOf(value, seen)))
})
