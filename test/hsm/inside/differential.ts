/** Runs inside: seeded guest programs over the real driver. Arguments: how many, and the seed. */
import * as Effect from "effect/Effect"
import * as Acrn from "../../../src/layers/Acrn.ts"
import { runAll } from "../differentialRuns.ts"
import { listen, withToldEnds } from "./toldEnds.ts"

const [count = 1, seed = 1] = process.argv.slice(2).map(Number)
listen()
for (const run of await Effect.runPromise(runAll(withToldEnds(Acrn.layer), count, seed))) {
  console.log(JSON.stringify(run))
}
process.exit(0)
