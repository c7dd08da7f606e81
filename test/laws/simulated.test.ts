import * as Simulated from "../../src/layers/Simulated.ts"
import * as Laws from "../../src/testing/Laws.ts"

Laws.suite("Simulated", Simulated.layer, { runs: 1000 })
