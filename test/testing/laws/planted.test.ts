/** Each law finds a fault of its kind, makes it small, and finds it again from its token. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer, References } from "effect"
import * as Simulated from "../../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../../src/services/Hypervisor.ts"
import type { VirtualMachine } from "../../../src/services/VirtualMachine.ts"
import * as Law from "../../../src/testing/Law.ts"
import { laws } from "../../../src/testing/laws/all.ts"
import * as misserving from "./misserving.ts"
import * as planted from "./planted.ts"

interface Fault {
  readonly law: number
  readonly fault: string
  readonly problem: RegExp
  readonly hypervisor?: Layer.Layer<Hypervisor>
  readonly machines?: Layer.Layer<VirtualMachine, never, Hypervisor>
}

const faults: ReadonlyArray<Fault> = [
  {
    law: 1,
    fault: "completes by way of Free",
    problem: /went from state|byte 136/,
    machines: planted.completesByFree
  },
  { law: 2, fault: "reads a request twice", problem: /was read 2 times/, machines: planted.fetchesTwice },
  { law: 3, fault: "accepts a stray completion", problem: /its handle is stale/, machines: planted.acceptsStrays },
  {
    law: 4,
    fault: "takes a failure for an answer of 0",
    problem: /answered 0xff+: read[^]*answered 0x0: read|events must be \[HandlerFailed\]/,
    machines: misserving.answersFailuresWithZero
  },
  {
    law: 5,
    fault: "gives up at a foreign state",
    problem: /Error: state (4|-1)/,
    hypervisor: misserving.throwsAtForeignStates
  },
  {
    law: 6,
    fault: "drops the high words of addresses",
    problem: /request 0 must be[^]*but was[^]*0x300 /,
    hypervisor: misserving.dropsHighAddresses
  },
  {
    law: 7,
    fault: "moves a range in two steps",
    problem: /must be answered by client 0, and was by nobody/,
    machines: planted.movesInTwoSteps
  },
  {
    law: 8,
    fault: "looks at the first byte alone",
    problem: /: (read|write) [24] bytes[^]*: (read|write) 1 byte/,
    hypervisor: misserving.looksAtFirstBytes
  },
  { law: 9, fault: "keeps a client", problem: /heir|ran after|must be/, machines: planted.keepsClients },
  { law: 10, fault: "does not pause", problem: /while the VM was paused|resume/, hypervisor: planted.neverPauses },
  { law: 11, fault: "does not reset devices", problem: /the last life|life 2/, machines: planted.keepsDevices },
  { law: 12, fault: "loses upcalls", problem: /the guest waits/, hypervisor: planted.losesUpcalls },
  { law: 13, fault: "moves a range in two steps", problem: /went to/, machines: planted.movesInTwoSteps },
  {
    law: 14,
    fault: "asks once for a repeated access",
    problem: /must be/,
    machines: misserving.asksOnce
  },
  {
    law: 15,
    fault: "notifies polled completions, too",
    problem: /was notified, and no completion of it waits for that/,
    hypervisor: misserving.ignoresPolling
  },
  {
    law: 16,
    fault: "answers anew in each VM",
    problem: /must be/,
    machines: misserving.answersAnewInEachVm
  }
]

describe("a law finds a planted fault", () => {
  for (const { fault, hypervisor = Simulated.layer, law: number, machines, problem } of faults) {
    it.live(`law ${number}: a hypervisor or VM that ${fault}`, () =>
      Effect.gen(function*() {
        const law = laws.find((each) => each.number === number)!
        const outcome = yield* Law.check(law, "planted", hypervisor, { runs: 1000, machines })
        if (outcome._tag !== "Broken") return assert.fail(`it was not found in 1000 cases: ${outcome._tag}`)
        assert.match(outcome.problem, problem)
        const again = yield* Law.check(law, "planted", hypervisor, { replay: outcome.replay, machines })
        if (again._tag !== "Broken") return assert.fail(`it was not found again: ${again._tag}`)
        assert.strictEqual(again.problem, outcome.problem)
        assert.strictEqual(again.smallest, outcome.smallest)
      }).pipe(Effect.provideService(References.MinimumLogLevel, "None")))
  }
})
