import * as Kvm from "../../src/layers/Kvm.ts"
import { exceptWithoutKvm as except } from "../support/kvm.ts"
import { suites } from "./adversaries.ts"

const interruptController = "None"

suites("Kvm", Kvm.layerWith({ interruptController }), { runs: 10, seeds: [1], except })
suites("Kvm on threads", Kvm.layerWith({ interruptController, placement: "Worker" }), { runs: 10, seeds: [2], except })
