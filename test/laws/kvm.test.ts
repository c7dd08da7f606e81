import * as Kvm from "../../src/layers/Kvm.ts"
import * as Laws from "../../src/testing/Laws.ts"
import { exceptWithoutKvm as except } from "../support/kvm.ts"

Laws.suite("Kvm", Kvm.layer, { runs: 100, seed: 1, except })
// The kernel makes and ends such VMs in half the time.
Laws.suite("Kvm without interrupt controllers", Kvm.layerWith({ interruptController: "None" }), {
  runs: 200,
  seed: 2,
  except
})
