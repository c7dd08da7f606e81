/** Law 4. What no client answered is answered with all-ones, and told. */
import * as Effect from "effect/Effect"
import type { DispatchEvent } from "../../domain/DispatchEvent.ts"
import * as Law from "../Law.ts"
import * as ProgramCase from "./ProgramCase.ts"
import * as World from "./World.ts"

type Told = DispatchEvent["_tag"]

/** What must be told of a request that this client got, if anything. */
const toldOf = (world: World.World, client: string): Told | undefined => {
  if (client === "(nobody)") return "Unhandled"
  const answers = client === World.DEFAULT_CLIENT
    ? world.default
    : world.clients.find(({ name }) => name === client)?.answers
  switch (answers?._tag) {
    case "Fails":
    case "Dies":
    case "Throws":
      return "HandlerFailed"
    case "TooLate":
      return "DeadlinePassed"
    default:
      return undefined
  }
}

// No more of them are kept.
const KEPT_EVENTS = 256

const problemOfEvents = (
  { world }: ProgramCase.ProgramCase,
  { entries, events }: ProgramCase.Observation
): string | undefined => {
  const must = entries.flatMap(({ _tag, client }) => _tag === "Answered" ? toldOf(world, client) ?? [] : [])
  const told = events.map(({ _tag }) => _tag)
  return must.length > KEPT_EVENTS || must.toSorted().join() === told.toSorted().join()
    ? undefined
    : `the events must be [${must.join(", ")}], and were [${told.join(", ")}]`
}

export const alwaysAnswered = Law.make<ProgramCase.ProgramCase>({
  number: 4,
  title: "every request is answered: by its client, by the default client, or with all-ones",
  cases: (subject) => ProgramCase.cases(subject, { answers: World.failing }),
  show: ProgramCase.show,
  holds: (value) =>
    Effect.gen(function*() {
      const seen = yield* ProgramCase.run(value)
      yield* Law.holdsUnless(ProgramCase.problemOf(value, seen) ?? problemOfEvents(value, seen))
    })
})
