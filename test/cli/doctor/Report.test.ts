import { assert, describe, it } from "@effect/vitest"
import { acrnSection, formatSummary, kvmSection } from "../../../src/cli/doctor/Report.ts"
import { board, serviceVm } from "./facts.ts"

const summary = (kvm = board, acrn = serviceVm) => formatSummary(kvmSection(kvm), acrnSection(acrn))

describe("upcall doctor's summary", () => {
  it("says which hypervisors can be used, and which one auto is", () => {
    const text = summary()
    for (const name of ["emulated", "simulated", "kvm", "acrn"]) assert.match(text, new RegExp(`^${name} +yes `, "m"))
    assert.include(text, "`--hypervisor auto` is kvm here.")
    assert.notInclude(text, "limited")
  })

  it("gives the first reason why not", () => {
    const text = summary(
      { ...board, device: { _tag: "Absent" }, interface: undefined, trials: undefined },
      { ...serviceVm, hypervisor: "none", device: { _tag: "Absent" } }
    )
    assert.match(text, /^kvm +no +there is no \/dev\/kvm$/m)
    assert.match(text, /^acrn +no +this machine runs on no hypervisor$/m)
    assert.include(text, "`--hypervisor auto` is emulated here.")
  })

  it("says where there are limits", () => {
    const trials = { ...board.trials!, interruptReturn: { _tag: "Failed", problem: "it stopped" } } as const
    assert.match(summary({ ...board, trials }), /^kvm +yes .*\(limited, see above\)$/m)
  })
})
