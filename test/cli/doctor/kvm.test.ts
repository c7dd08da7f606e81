import { assert, describe, it } from "@effect/vitest"
import type { DeviceFact, KvmFacts } from "../../../src/cli/doctor/Facts.ts"
import * as Report from "../../../src/cli/doctor/Report.ts"
import { board, extensionsWithout, wrongOf } from "./facts.ts"

const diagnose = (facts: Partial<KvmFacts>) => {
  const section = Report.kvmSection({ ...board, ...facts })
  const wrong = wrongOf(section.findings)
  return {
    isReady: section.isReady,
    text: Report.format(section),
    wrong,
    checks: wrong.map(({ check, verdict }) => `${check} ${verdict}`),
    of: (check: string) => section.findings.find((finding) => finding.check === check)!
  }
}

/** As a machine is whose device nobody could open. */
const unopened = { device: { _tag: "Absent" }, interface: undefined, trials: undefined } as const

const refused = (code: string, group = "kvm", mode = 0o660): Partial<KvmFacts> => ({
  ...unopened,
  device: { _tag: "Refused", code, owner: { user: "root", group, mode } } satisfies DeviceFact
})

const alice = { name: "alice", groups: ["alice"], listedGroups: ["audio"] }

describe("upcall doctor kvm", () => {
  it("a machine with everything is ready, and knows what each capability is for", () => {
    const { isReady, text, wrong } = diagnose({})
    assert.isTrue(isReady)
    assert.deepStrictEqual(wrong, [])
    assert.include(text, "it has Intel VT-x (vmx)")
    assert.match(text, /^KVM_CAP_SIGNAL_MSI +yes {2}the service Msi$/m)
    assert.match(text, /^KVM_CAP_USER_MEMORY +yes .*\(needed\)$/m)
    assert.include(text, "VMs can run on KVM here.")
  })

  it("AMD's processors are known, too", () => {
    const { of, wrong } = diagnose({ features: new Set(["svm"]), modules: new Set(["kvm", "kvm_amd"]) })
    assert.deepStrictEqual(wrong, [])
    assert.strictEqual(of("processor").detail, "it has AMD-V (svm)")
  })

  it("elsewhere than on Linux on x86-64 nothing else is asked", () => {
    const { isReady, text, wrong } = diagnose({ ...unopened, platform: "linux arm64" })
    assert.isFalse(isReady)
    assert.strictEqual(wrong.length, 1)
    assert.include(text, "this is linux arm64")
  })

  it("a processor without virtualization is told from a VM to which it is not given", () => {
    const facts = { ...unopened, features: new Set(["sse2"]), modules: new Set<string>(), isRegistered: false }
    const bare = diagnose(facts)
    assert.deepStrictEqual(bare.checks, ["processor missing", "kernel missing", "device missing"])
    assert.include(bare.of("processor").remedy!, "firmware")
    const guest = diagnose({ ...facts, hypervisor: "vmware" })
    assert.include(guest.of("processor").remedy!, "a VM on vmware: switch nested virtualization on")
    assert.include(diagnose({ ...facts, hypervisor: "kvm" }).of("processor").remedy!, "nested=1")
    assert.strictEqual(diagnose({ ...facts, features: undefined }).of("processor").verdict, "unknown")
    assert.include(guest.text, "VMs cannot run on KVM here")
  })

  it("a KVM that does without the processor is one", () => {
    const { isReady, of, wrong } = diagnose({
      hypervisor: "kvm",
      features: new Set(["sse2"]),
      modules: new Set(["kvm", "kvm_pvm"])
    })
    assert.isTrue(isReady)
    assert.deepStrictEqual(wrong, [])
    assert.include(of("nesting").detail, "a VM on kvm: exits cost several times as much, and most code is interpreted")
    const closed = diagnose({ ...refused("EACCES"), features: new Set(["sse2"]), modules: new Set(["kvm", "kvm_pvm"]) })
    assert.deepStrictEqual(closed.checks, ["device missing"])
    const unnamed = diagnose({ features: new Set(["sse2"]), modules: new Set(["kvm"]) })
    assert.deepStrictEqual(unnamed.wrong, [])
  })

  it("nesting is told, as far as it can be", () => {
    assert.include(diagnose({}).of("nesting").detail, "this machine is no VM")
    assert.notInclude(diagnose({ hypervisor: "xen" }).of("nesting").detail, "interpreted")
    const { isReady, of } = diagnose({ hypervisor: undefined })
    assert.isTrue(isReady)
    assert.strictEqual(of("nesting").verdict, "unknown")
  })

  describe("without a device", () => {
    const absent = { ...unopened, isRegistered: false, modules: new Set(["kvm"]) }

    it("the module of this processor is named", () => {
      const { checks, of } = diagnose(absent)
      assert.deepStrictEqual(checks, ["kernel missing", "device missing"])
      assert.strictEqual(of("kernel").detail, "kvm_intel is not loaded")
      assert.include(of("kernel").remedy!, "sudo modprobe kvm_intel")
      assert.include(diagnose({ ...absent, features: new Set(["svm"]) }).of("kernel").remedy!, "modprobe kvm_amd")
      assert.include(diagnose({ ...absent, options: undefined }).of("kernel").remedy!, "modprobe kvm_intel")
    })

    it("a module that serves nothing was refused by the processor", () => {
      const { of } = diagnose({ ...absent, modules: new Set(["kvm", "kvm_intel"]) })
      assert.include(of("kernel").detail, "kvm_intel is there and serves no device")
      assert.include(of("kernel").remedy!, "firmware")
    })

    it("a kernel without KVM is none", () => {
      const none = diagnose({ ...absent, options: new Map() })
      assert.strictEqual(none.of("kernel").detail, "it was built without CONFIG_KVM and CONFIG_KVM_INTEL")
      const half = diagnose({ ...absent, options: new Map([["CONFIG_KVM", "y"], ["CONFIG_KVM_AMD", "m"]]) })
      assert.strictEqual(half.of("kernel").detail, "it was built without CONFIG_KVM_INTEL")
    })

    it("a kernel that serves one makes this a container", () => {
      const { checks, of } = diagnose({ ...absent, isRegistered: true })
      assert.deepStrictEqual(checks, ["device missing"])
      assert.include(of("device").remedy!, "docker run --device /dev/kvm")
    })
  })

  describe("with a device that does not open", () => {
    it("its owner is named, and the group to join", () => {
      const { checks, isReady, of } = diagnose({ ...refused("EACCES"), user: alice })
      assert.isFalse(isReady)
      assert.deepStrictEqual(checks, ["device missing"])
      assert.strictEqual(of("device").detail, "/dev/kvm (root:kvm, mode 0660) cannot be opened by alice: EACCES")
      assert.strictEqual(of("device").remedy, "sudo usermod -aG kvm alice, then log in again")
    })

    it("who joined since the login logs in again", () => {
      const user = { ...alice, listedGroups: ["kvm"] }
      assert.include(diagnose({ ...refused("EACCES"), user }).of("device").remedy!, "log in again")
      assert.notInclude(diagnose({ ...refused("EACCES"), user }).of("device").remedy!, "usermod")
    })

    it("a group that has no right, or is root's, is not to be joined", () => {
      for (const device of [refused("EACCES", "root"), refused("EACCES", "kvm", 0o600)]) {
        const { of } = diagnose({ ...device, user: alice })
        assert.include(of("device").remedy!, "udev")
        assert.notInclude(of("device").remedy!, "usermod")
      }
    })

    it("who is in the group already is refused by something else", () => {
      const user = { ...alice, groups: ["kvm"] }
      assert.include(diagnose({ ...refused("EACCES"), user }).of("device").remedy!, "sandbox")
    })

    it("other refusals have other causes", () => {
      assert.include(diagnose(refused("EPERM")).of("device").remedy!, "docker run --device /dev/kvm")
      assert.include(diagnose(refused("ENXIO")).of("device").remedy!, "nothing behind it")
      assert.include(diagnose(refused("EIO")).of("device").remedy!, "dmesg")
    })
  })

  it("without koffi the device is of no use", () => {
    const koffi = { _tag: "Unusable", problem: "Cannot find package 'koffi'" } as const
    const { checks, isReady, of } = diagnose({ koffi, interface: undefined, trials: undefined })
    assert.isFalse(isReady)
    assert.deepStrictEqual(checks, ["koffi missing"])
    assert.include(of("koffi").remedy!, "npm install koffi@")
  })

  it("a device that is no KVM, or one of another version, is not asked for more", () => {
    const other = diagnose({ path: "/dev/null", interface: { version: -25, extensions: new Map() }, trials: undefined })
    assert.deepStrictEqual(other.checks, ["interface missing"])
    assert.include(other.of("interface").detail, "/dev/null is no KVM: KVM_GET_API_VERSION gave ENOTTY (-25)")
    assert.notInclude(other.text, "KVM_CAP")
    const old = diagnose({ interface: { version: 11, extensions: new Map() }, trials: undefined })
    assert.include(old.of("interface").detail, "version 11; only 12")
  })

  it("a capability that VMs need is told from one that only some service needs", () => {
    const withExtensions = (extensions: KvmFacts["interface"] & object) => ({ interface: extensions })
    const needed = diagnose({
      ...withExtensions({ version: 12, extensions: extensionsWithout("IMMEDIATE_EXIT", "PIT2") }),
      trials: { first: { _tag: "Failed", problem: "this KVM lacks KVM_CAP_IMMEDIATE_EXIT" } }
    })
    assert.isFalse(needed.isReady)
    assert.deepStrictEqual(needed.checks, ["capabilities missing", "guests missing"])
    assert.strictEqual(needed.of("capabilities").detail, "no VM without KVM_CAP_IMMEDIATE_EXIT")
    const limited = diagnose(withExtensions({ version: 12, extensions: extensionsWithout("PIT2", "SIGNAL_MSI") }))
    assert.isTrue(limited.isReady)
    assert.deepStrictEqual(limited.checks, ["capabilities limited"])
    assert.include(limited.of("capabilities").detail, "not KVM_CAP_PIT2, KVM_CAP_SIGNAL_MSI")
    assert.match(limited.text, /^KVM_CAP_PIT2 +no {2}the option timer "Kernel"$/m)
  })

  it("only a guest that ran is proof", () => {
    const failed = { _tag: "Failed", problem: "CREATE_VM was refused" } as const
    const busy = diagnose({ trials: { first: failed, onPlainCpu: failed } })
    assert.isFalse(busy.isReady)
    assert.include(busy.of("guests").detail, "CREATE_VM was refused")
    assert.include(busy.of("guests").remedy!, "another program")
    const picky = diagnose({ trials: { first: failed, onPlainCpu: { _tag: "Ran" } } })
    assert.isFalse(picky.isReady)
    assert.include(picky.of("guests").remedy!, "cpu: \"Plain\"")
    assert.isFalse(diagnose({ trials: undefined }).isReady)
  })

  it("kinds of guests that do not run are limits", () => {
    const failed = { _tag: "Failed", problem: "it met an instruction" } as const
    const { checks, isReady, wrong } = diagnose({
      trials: { first: { _tag: "Ran" }, longMode: failed, paging: failed, interruptReturn: failed }
    })
    assert.isTrue(isReady)
    assert.deepStrictEqual(checks, ["guests limited", "guests limited", "guests limited"])
    assert.include(wrong[0]!.detail, "64-bit code did not run")
    assert.include(wrong[1]!.detail, "with paging did not run: it met")
    assert.include(wrong[2]!.detail, "(IRET) in 32-bit code without paging")
  })
})
