import * as Kvm from "../../src/layers/Kvm.ts"
import * as Laws from "../../src/testing/Laws.ts"
import { exceptWithoutKvm as except } from "../support/kvm.ts"

const placement = "Worker"

Laws.suite("Kvm on threads", Kvm.layerWith({ placement }), { runs: 100, seed: 3, except })
Laws.suite(
  "Kvm on threads, without interrupt controllers",
  Kvm.layerWith({ placement, interruptController: "None" }),
  { runs: 200, seed: 4, except }
)
