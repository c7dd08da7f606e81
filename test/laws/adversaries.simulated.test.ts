import * as Simulated from "../../src/layers/Simulated.ts"
import { suites } from "./adversaries.ts"

suites("Simulated", Simulated.layer, { runs: 50, seeds: [1, 2, 3, 4] })
