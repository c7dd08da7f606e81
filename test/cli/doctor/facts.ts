/** Machines that have everything. */
import * as Capabilities from "../../../src/cli/doctor/capabilities.ts"
import type { AcrnFacts, KvmFacts, MachineFacts } from "../../../src/cli/doctor/Facts.ts"
import type { Finding } from "../../../src/cli/doctor/Finding.ts"
import type { CapabilityName } from "../../../src/layers/kvm/abi/Capability.ts"

const machine: MachineFacts = {
  platform: "linux x64",
  kernel: "6.1.0",
  hypervisor: "none",
  options: new Map(),
  koffi: { _tag: "Usable", detail: "version 3.3.4" },
  user: { name: "root", groups: ["root"], listedGroups: [] }
}

export const serviceVm: AcrnFacts = {
  ...machine,
  hypervisor: "acrn",
  options: new Map([["CONFIG_ACRN_GUEST", "y"], ["CONFIG_ACRN_HSM", "y"]]),
  path: "/dev/acrn_hsm",
  device: { _tag: "Opened" }
}

/** Those that a KVM has, but for these. */
export const extensionsWithout = (...missing: ReadonlyArray<CapabilityName>): ReadonlyMap<CapabilityName, number> =>
  new Map(Capabilities.names.map((name) => [name, missing.includes(name) ? 0 : 1]))

const RAN = { _tag: "Ran" } as const

export const board: KvmFacts = {
  ...machine,
  options: new Map([["CONFIG_KVM", "m"], ["CONFIG_KVM_AMD", "m"], ["CONFIG_KVM_INTEL", "m"]]),
  path: "/dev/kvm",
  device: { _tag: "Opened" },
  features: new Set(["fpu", "vmx", "sse2"]),
  modules: new Set(["kvm", "kvm_intel"]),
  isRegistered: true,
  interface: { version: 12, extensions: extensionsWithout() },
  trials: { first: RAN, longMode: RAN, paging: RAN, interruptReturn: RAN }
}

/** What a report finds wrong. */
export const wrongOf = (findings: ReadonlyArray<Finding>): ReadonlyArray<Finding> =>
  findings.filter(({ verdict }) => verdict !== "ok")
