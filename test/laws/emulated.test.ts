import * as Emulated from "../../src/layers/Emulated.ts"
import * as Laws from "../../src/testing/Laws.ts"

Laws.suite("Emulated", Emulated.layerWith({ clock: "Virtual" }), { runs: 200 })
