/**
 * Law 16. Each of two runs must show what the reference says, byte by byte where hypervisors may split an access; so
 * any two hypervisors that hold the law agree with each other.
 */
import * as Effect from "effect/Effect"
import type { IoRange } from "../../domain/IoRange.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import * as Trace from "../Trace.ts"
import * as ProgramCase from "./ProgramCase.ts"
import * as Reference from "./Reference.ts"
import * as World from "./World.ts"

/** A client of memory owns all of it, or an access in pieces could be shared out in another way than a whole one. */
const withWholeMemory = (
  { programs, world }: ProgramCase.ProgramCase,
  memory: IoRange
): ProgramCase.ProgramCase => {
  const isMemory = ({ _tag }: IoRange) => _tag === "Mmio"
  const owner = world.clients.findIndex(({ ranges }) => ranges.some(isMemory))
  return {
    programs,
    world: {
      ...world,
      clients: world.clients.map((client, index) => ({
        ...client,
        ranges: [
          ...client.ranges.filter((range) => !isMemory(range)),
          ...index === owner ? [memory] : []
        ]
      }))
    }
  }
}

/** Cases that every hypervisor of the subject's profile runs to the same trace, byte by byte. */
export const cases = (
  subject: Law.Subject,
  options?: ProgramCase.Options
): Generator.Generator<ProgramCase.ProgramCase> => {
  const memory = World.wholeMemory(subject.profile)
  return Generator.map(ProgramCase.cases(subject, options), (value) => withWholeMemory(value, memory))
}

const problemOf = (value: ProgramCase.ProgramCase, seen: ProgramCase.Observation): string | undefined => {
  const { programs, world } = value
  const bytes = Reference.servedIn(Trace.inBytes(seen.entries), programs.length)
  for (const [vcpu, { served }] of Reference.run(world, programs, Reference.byteByByte).entries()) {
    const difference = Reference.firstDifference(served, bytes[vcpu]!)
    if (difference !== undefined) return `vCPU ${vcpu}, byte by byte: ${difference}`
  }
  return ProgramCase.problemOf(value, seen)
}

const parting = (
  first: ProgramCase.Observation,
  second: ProgramCase.Observation,
  vcpus: number
): string | undefined => {
  const [earlier, later] = [first, second].map(({ entries }) => Reference.servedIn(entries, vcpus))
  for (let vcpu = 0; vcpu < vcpus; vcpu++) {
    const difference = Reference.firstDifference(earlier![vcpu]!, later![vcpu]!)
    if (difference !== undefined) return `vCPU ${vcpu} in a second run: ${difference}`
  }
  return undefined
}

export const sameTrace = Law.make<ProgramCase.ProgramCase>({
  number: 16,
  title: "the same program in the same world gives the same trace, on any hypervisor",
  cases,
  show: ProgramCase.show,
  holds: (value) =>
    Effect.gen(function*() {
      const first = yield* ProgramCase.run(value)
      yield* Law.holdsUnless(problemOf(value, first))
      const second = yield* ProgramCase.run(value)
      yield* Law.holdsUnless(parting(first, second, value.programs.length))
    })
})
