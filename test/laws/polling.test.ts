import * as Simulated from "../../src/layers/Simulated.ts"
import * as Laws from "../../src/testing/Laws.ts"

Laws.suite("Simulated, polling for completion", Simulated.layerWith({ completion: "Polling" }), { runs: 1000 })
