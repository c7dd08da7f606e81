/** Runs inside: seeded hypercall sequences over the real driver. Arguments: how many, and the seed. */
import * as Effect from "effect/Effect"
import * as Acrn from "../../../src/layers/Acrn.ts"
import { runAll, sequences } from "../sequenceRuns.ts"

const [count = 1, seed = 1] = process.argv.slice(2).map(Number)
const all = Effect.flatMap(sequences(count, seed), (each) => runAll(Acrn.layer, each))
for (const steps of await Effect.runPromise(all)) console.log(JSON.stringify(steps))
process.exit(0)
