import { assert, describe, it } from "@effect/vitest"
import * as Acrn from "../../../src/cli/doctor/acrn.ts"
import type { AcrnFacts } from "../../../src/cli/doctor/Facts.ts"
import * as Report from "../../../src/cli/doctor/Report.ts"
import { serviceVm, wrongOf } from "./facts.ts"

const refused = (code: string) =>
  ({ _tag: "Refused", code, owner: { user: "root", group: "root", mode: 0o600 } }) as const

const diagnose = (facts: Partial<AcrnFacts>) => {
  const section = Report.acrnSection({ ...serviceVm, ...facts })
  return {
    isReady: section.isReady,
    text: Report.format(section),
    wrong: wrongOf(section.findings),
    of: (check: string) => section.findings.find((finding) => finding.check === check)!
  }
}

describe("upcall doctor acrn", () => {
  it("a Service VM with everything is ready", () => {
    const { isReady, text, wrong } = diagnose({})
    assert.isTrue(isReady)
    assert.deepStrictEqual(wrong, [])
    assert.include(text, "VMs can run on ACRN here.")
  })

  it("a device that is there but not ours names its owner, and a way to share it", () => {
    const user = { name: "alice", groups: ["alice"], listedGroups: [] }
    const { isReady, wrong } = diagnose({ device: refused("EACCES"), user })
    assert.isFalse(isReady)
    assert.deepStrictEqual(wrong.map(({ check }) => check), ["device"])
    assert.include(wrong[0]!.detail, "/dev/acrn_hsm (root:root, mode 0600) cannot be opened by alice: EACCES")
    assert.include(wrong[0]!.remedy!, "udev")
  })

  it("a device that fails otherwise refers to the kernel's log", () => {
    const { of } = diagnose({ device: refused("ENXIO") })
    assert.include(of("device").remedy!, "dmesg")
  })

  it("a module that is not loaded is told from one that was not built", () => {
    const absent = { device: { _tag: "Absent" } } as const
    const unloaded = diagnose({
      ...absent,
      options: new Map([["CONFIG_ACRN_GUEST", "y"], ["CONFIG_ACRN_HSM", "m"]])
    })
    assert.deepStrictEqual(unloaded.wrong.map(({ check }) => check), ["device"])
    assert.include(unloaded.of("device").remedy!, "modprobe acrn")
    const unbuilt = diagnose({ ...absent, options: new Map([["CONFIG_ACRN_GUEST", "y"]]) })
    assert.deepStrictEqual(unbuilt.wrong.map(({ check }) => check), ["kernel", "device"])
    assert.include(unbuilt.of("kernel").detail, "without CONFIG_ACRN_HSM")
    assert.strictEqual(diagnose({ ...absent, options: undefined }).of("kernel").verdict, "unknown")
  })

  it("a machine on another hypervisor, or on none, is no Service VM", () => {
    const absent = { device: { _tag: "Absent" } } as const
    for (const [hypervisor, detail] of [["kvm", "runs on kvm"], ["none", "runs on no hypervisor"]] as const) {
      const { isReady, of } = diagnose({ ...absent, hypervisor })
      assert.isFalse(isReady)
      assert.strictEqual(of("hypervisor").verdict, "missing")
      assert.include(of("hypervisor").detail, detail)
      assert.include(of("device").remedy!, "only when the kernel runs as the Service VM")
    }
    assert.strictEqual(diagnose({ ...absent, hypervisor: undefined }).of("hypervisor").verdict, "unknown")
  })

  it("a User VM of ACRN is told what it may be", () => {
    assert.include(diagnose({ device: { _tag: "Absent" } }).of("device").remedy!, "this may be a User VM")
  })

  it("what cannot be told does not matter once the device opens", () => {
    const { isReady, wrong } = diagnose({ hypervisor: undefined, options: undefined })
    assert.isTrue(isReady)
    assert.deepStrictEqual(wrong, [])
  })

  it("without koffi the device is of no use", () => {
    const { isReady, wrong } = diagnose({ koffi: { _tag: "Unusable", problem: "Cannot find package 'koffi'" } })
    assert.isFalse(isReady)
    assert.deepStrictEqual(wrong.map(({ check }) => check), ["koffi"])
    assert.include(wrong[0]!.remedy!, "npm install koffi@")
  })

  it("elsewhere than on Linux nothing else is asked", () => {
    const { isReady, text, wrong } = diagnose({ platform: "darwin arm64" })
    assert.isFalse(isReady)
    assert.strictEqual(wrong.length, 1)
    assert.include(text, "this is darwin arm64")
  })

  it("only a device that opened is proof", () => {
    const { device: _, ...rest } = serviceVm
    const findings = Acrn.diagnose({ ...rest, device: { _tag: "Absent" } })
    assert.isFalse(Acrn.isReady(findings.filter(({ check }) => check !== "device")))
  })
})
