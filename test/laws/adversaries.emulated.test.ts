import * as Emulated from "../../src/layers/Emulated.ts"
import { suites } from "./adversaries.ts"

suites("Emulated", Emulated.layerWith({ clock: "Virtual" }), { runs: 15, seeds: [1, 2] })
