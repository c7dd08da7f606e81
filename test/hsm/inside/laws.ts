/** Runs inside: tries laws on the layer over the real driver. Arguments: cases, seed, and numbers of laws. */
import * as Effect from "effect/Effect"
import * as Acrn from "../../../src/layers/Acrn.ts"
import * as Law from "../../../src/testing/Law.ts"
import { laws } from "../../../src/testing/laws/all.ts"
import { MillisOfStillness } from "../../../src/testing/laws/Moments.ts"
import { listen, withToldEnds } from "./toldEnds.ts"

const [runs, seed, ...numbers] = process.argv.slice(2).map(Number)

// Inside, on a busy host, a thread that waits takes more than a second to start, and TypeScript most of that.
const PATIENCE = "30 seconds"

// The guest runs outside, in a process that may have to wait for a processor, and so does the word of its end.
const STILLNESS_MS = 5000

listen()
for (const law of laws) {
  if (!numbers.includes(law.number)) continue
  const start = performance.now()
  const outcome = await Effect.runPromise(
    Law.check(law, "acrn", withToldEnds(Acrn.layer), { runs, seed, patience: PATIENCE }).pipe(
      Effect.provideService(MillisOfStillness, STILLNESS_MS)
    )
  )
  const seconds = Math.round((performance.now() - start) / 100) / 10
  console.log(JSON.stringify({ number: law.number, outcome, seconds }))
}
process.exit(0)
