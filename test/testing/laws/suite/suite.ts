/** What `Laws.test.ts` has vitest run: suites of which one law holds, one is broken, and one is skipped. */
import * as Simulated from "../../../../src/layers/Simulated.ts"
import * as Laws from "../../../../src/testing/Laws.ts"
import * as planted from "../planted.ts"

Laws.suite("sound", Simulated.layer, { runs: 5, only: [1, 12], except: { 12: "its line is another's" } })
Laws.suite("faulty", planted.losesUpcalls, { runs: 100, only: [12] })
