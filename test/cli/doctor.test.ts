import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Doctor from "../../src/cli/doctor.ts"

const ready: Doctor.Facts = {
  platform: "linux x64",
  kernel: "6.1.0",
  hypervisor: "acrn",
  options: new Map([["CONFIG_ACRN_GUEST", "y"], ["CONFIG_ACRN_HSM", "y"]]),
  koffi: { _tag: "Usable", detail: "version 3.3.4" },
  path: "/dev/acrn_hsm",
  device: { _tag: "Opened" },
  user: "root"
}

const diagnose = (facts: Partial<Doctor.Facts>) => {
  const findings = Doctor.diagnose({ ...ready, ...facts })
  return {
    isReady: Doctor.isReady(findings),
    text: Doctor.format(findings),
    wrong: findings.filter(({ verdict }) => verdict !== "ok"),
    of: (check: string) => findings.find((finding) => finding.check === check)!
  }
}

describe("doctor", () => {
  it("a Service VM with everything is ready", () => {
    const { isReady, text, wrong } = diagnose({})
    assert.isTrue(isReady)
    assert.deepStrictEqual(wrong, [])
    assert.include(text, "VMs can run on ACRN here.")
  })

  it("a device that is there but not ours names its owner, and a way to share it", () => {
    const device = { _tag: "Refused", code: "EACCES", owner: "owner 0:0", mode: "0600" } as const
    const { isReady, wrong } = diagnose({ device, user: "user 1000" })
    assert.isFalse(isReady)
    assert.deepStrictEqual(wrong.map(({ check }) => check), ["device"])
    assert.include(wrong[0]!.detail, "/dev/acrn_hsm (owner 0:0, mode 0600) cannot be opened by user 1000: EACCES")
    assert.include(wrong[0]!.remedy!, "udev")
  })

  it("a device that fails otherwise refers to the kernel's log", () => {
    const { of } = diagnose({ device: { _tag: "Refused", code: "ENXIO", owner: "owner 0:0", mode: "0600" } })
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

  it("reads a kernel's configuration", () => {
    assert.deepStrictEqual(
      [...Doctor.parseOptions(
        "# comment\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"y\"\nCONFIG_E=7\n"
      )],
      [["CONFIG_A", "y"], ["CONFIG_B", "m"]]
    )
  })

  it.effect("looks this machine up without failing", () =>
    Effect.gen(function*() {
      const facts = yield* Doctor.gather("/nowhere/acrn_hsm")
      assert.strictEqual(facts.platform, `${process.platform} ${process.arch}`)
      assert.strictEqual(facts.device._tag, "Absent")
      const directory = yield* Doctor.gather("/")
      assert.deepInclude(directory.device, { _tag: "Refused", code: "EISDIR" })
    }))
})
