/**
 * Whether this machine can run VMs on KVM, and if not, why: what the facts mean.
 */
import { describeResult } from "../../domain/Errno.ts"
import { capabilityCName, type CapabilityName } from "../../layers/kvm/abi/Capability.ts"
import { API_VERSION } from "../../layers/kvm/abi/KvmIoctl.ts"
import * as Capabilities from "./capabilities.ts"
import { formatRefusal, isSupportedPlatform, koffiFinding, platformFinding } from "./common.ts"
import type { DeviceFact, KvmFacts } from "./Facts.ts"
import type { Finding } from "./Finding.ts"

/** How processors call their help for hypervisors, and who makes use of it. */
const HELPERS = [
  { feature: "vmx", name: "Intel VT-x", module: "kvm_intel", option: "CONFIG_KVM_INTEL" },
  { feature: "svm", name: "AMD-V", module: "kvm_amd", option: "CONFIG_KVM_AMD" }
] as const

const helperOf = ({ features }: KvmFacts) => HELPERS.find(({ feature }) => features?.has(feature))

/** The KVM that asks nothing of the processor, for VMs whose host gives them nothing. */
const PVM = "kvm_pvm"

const hasRun = ({ trials }: KvmFacts): boolean => trials?.first._tag === "Ran"

const processorRemedy = ({ hypervisor }: KvmFacts): string => {
  if (hypervisor === undefined || hypervisor === "none") {
    return "switch virtualization on in the firmware's settings (VT-x, AMD-V or SVM); without it there is no KVM"
  }
  const how = hypervisor === "kvm" ? " (nested=1 for its kvm_intel or kvm_amd, and QEMU's -cpu host)" : ""
  return `this machine is a VM on ${hypervisor}: switch nested virtualization on for it, on its host${how}`
}

const processorFinding = (facts: KvmFacts): Finding => {
  const check = "processor"
  const helper = helperOf(facts)
  if (helper !== undefined) return { check, verdict: "ok", detail: `it has ${helper.name} (${helper.feature})` }
  if (facts.modules.has(PVM) || hasRun(facts)) {
    return { check, verdict: "ok", detail: "it has neither vmx nor svm, and this KVM asks for none" }
  }
  return facts.features === undefined
    ? { check, verdict: "unknown", detail: "its features cannot be read" }
    : {
      check,
      verdict: "missing",
      detail: "it has neither vmx (Intel VT-x) nor svm (AMD-V)",
      remedy: processorRemedy(facts)
    }
}

const nestingFinding = ({ hypervisor, modules }: KvmFacts): Finding => {
  const check = "nesting"
  if (hypervisor === undefined) {
    return { check, verdict: "unknown", detail: "it cannot be told whether this machine is itself a VM" }
  }
  if (hypervisor === "none") return { check, verdict: "ok", detail: "none: this machine is no VM" }
  const cost = modules.has(PVM)
    ? "exits cost several times as much, and most code is interpreted"
    : "exits cost several times as much"
  return { check, verdict: "ok", detail: `this machine is itself a VM on ${hypervisor}: ${cost}` }
}

const DMESG = "`dmesg | grep -i kvm` says why; often it is switched off in the firmware"

const kernelFinding = (facts: KvmFacts): Finding => {
  const { device, isRegistered, modules, options } = facts
  const check = "kernel"
  if (isRegistered || device._tag === "Opened") {
    const detail = modules.size === 0 ? "it has KVM" : `it has KVM (${[...modules].join(", ")})`
    return { check, verdict: "ok", detail }
  }
  const helper = helperOf(facts)
  const unset = ["CONFIG_KVM", ...helper === undefined ? [] : [helper.option]].filter((name) => !options?.has(name))
  if (options !== undefined && unset.length > 0) {
    return {
      check,
      verdict: "missing",
      detail: `it was built without ${unset.join(" and ")}`,
      remedy: "install a kernel that has it, as those of distributions do"
    }
  }
  if (helper === undefined) {
    return { check, verdict: "missing", detail: "it has no KVM that runs on this processor" }
  }
  return modules.has(helper.module)
    ? { check, verdict: "missing", detail: `${helper.module} is there and serves no device`, remedy: DMESG }
    : {
      check,
      verdict: "missing",
      detail: `${helper.module} is not loaded`,
      remedy: `sudo modprobe ${helper.module}; should it fail, ${DMESG}`
    }
}

const UDEV = "echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\"' > /etc/udev/rules.d/60-kvm.rules"

const GROUP_MAY_OPEN = 0o060

const permissionRemedy = ({ user }: KvmFacts, { owner }: DeviceFact & { readonly _tag: "Refused" }): string => {
  const { group, mode } = owner
  if ((mode & GROUP_MAY_OPEN) !== GROUP_MAY_OPEN || group === "root") {
    return `run as root, or let the group kvm have it: ${UDEV}`
  }
  if (user.groups.includes(group)) return "something beside the file's mode forbids it: an ACL, or a sandbox"
  return user.listedGroups.includes(group)
    ? `${user.name} is in the group ${group} since after this login: log in again`
    : `sudo usermod -aG ${group} ${user.name}, then log in again`
}

const refusalRemedy = (facts: KvmFacts, device: DeviceFact & { readonly _tag: "Refused" }): string => {
  switch (device.code) {
    case "EACCES":
      return permissionRemedy(facts, device)
    case "EPERM":
      return `a container may not use it: give it the device (docker run --device ${facts.path})`
    case "ENODEV":
    case "ENXIO":
      return "the file is there and nothing behind it: load the module"
    default:
      return "see the end of `dmesg`"
  }
}

const deviceFinding = (facts: KvmFacts): Finding => {
  const { device, isRegistered, path, user } = facts
  const check = "device"
  switch (device._tag) {
    case "Opened":
      return { check, verdict: "ok", detail: `${path} can be opened` }
    case "Absent":
      return {
        check,
        verdict: "missing",
        detail: `there is no ${path}`,
        remedy: isRegistered
          ? `the kernel has it: a container must be given it (docker run --device ${path}), elsewhere udev makes it`
          : "it comes with the kernel's KVM"
      }
    case "Refused":
      return {
        check,
        verdict: "missing",
        detail: formatRefusal(path, device, user),
        remedy: refusalRemedy(facts, device)
      }
  }
}

const listed = (names: ReadonlyArray<CapabilityName>): string => names.map(capabilityCName).join(", ")

const interfaceFindings = ({ interface: asked, path }: KvmFacts): ReadonlyArray<Finding> => {
  if (asked === undefined) return []
  const { extensions, version } = asked
  const check = "interface"
  if (version < 0) {
    return [{
      check,
      verdict: "missing",
      detail: `${path} is no KVM: KVM_GET_API_VERSION gave ${describeResult(version)}`,
      remedy: "KVM's own device is the character device 10:232"
    }]
  }
  if (version !== API_VERSION) {
    const detail = `version ${version}; only ${API_VERSION} is supported`
    return [{ check, verdict: "missing", detail, remedy: "update the kernel" }]
  }
  return [{ check, verdict: "ok", detail: `version ${version}` }, capabilitiesFinding(extensions)]
}

const capabilitiesFinding = (extensions: ReadonlyMap<CapabilityName, number>): Finding => {
  const check = "capabilities"
  const needs = Capabilities.missingNeeds(extensions)
  if (needs.length > 0) {
    return { check, verdict: "missing", detail: `no VM without ${listed(needs)}`, remedy: "update the kernel" }
  }
  const extras = Capabilities.missingExtras(extensions)
  return extras.length === 0
    ? { check, verdict: "ok", detail: "all that Upcall uses" }
    : {
      check,
      verdict: "limited",
      detail: `all that VMs need, but not ${listed(extras)}`,
      remedy: "the table below tells what that is for"
    }
}

const EMULATED = "guests with such code run with --hypervisor emulated"

/** Kinds of code that not every KVM runs. */
const KINDS = [
  { name: "longMode", text: "64-bit code", remedy: "32-bit guests run; for others use another machine" },
  { name: "paging", text: "32-bit code with paging", remedy: EMULATED },
  { name: "interruptReturn", text: "a return from an interrupt (IRET) in 32-bit code without paging", remedy: EMULATED }
] as const

const guestFindings = ({ trials }: KvmFacts): ReadonlyArray<Finding> => {
  if (trials === undefined) return []
  const check = "guests"
  const { first, onPlainCpu } = trials
  if (first._tag === "Failed") {
    return [{
      check,
      verdict: "missing",
      detail: `one of a few instructions did not run: ${first.problem}`,
      remedy: onPlainCpu?._tag === "Ran"
        ? "it ran with the layer's option cpu: \"Plain\": give it"
        : "see the end of `dmesg`; another program, such as VirtualBox, may hold the processor's virtualization"
    }]
  }
  const findings: Array<Finding> = [{ check, verdict: "ok", detail: "one of a few instructions ran" }]
  for (const { name, remedy, text } of KINDS) {
    const trial = trials[name]
    if (trial?._tag !== "Failed") continue
    findings.push({ check, verdict: "limited", detail: `${text} did not run: ${trial.problem}`, remedy })
  }
  return findings
}

/** What each fact means, from the ground up. */
export const diagnose = (facts: KvmFacts): ReadonlyArray<Finding> => {
  const platform = platformFinding(
    facts,
    "KVM is part of Linux, and Upcall speaks to it on x86-64; use the emulator here"
  )
  return isSupportedPlatform(facts)
    ? [
      platform,
      ...[processorFinding, nestingFinding, kernelFinding, deviceFinding, koffiFinding].map((finding) =>
        finding(facts)
      ),
      ...interfaceFindings(facts),
      ...guestFindings(facts)
    ]
    : [platform]
}

/** Whether VMs can run on KVM here: a guest that ran proves it. */
export const isReady = (findings: ReadonlyArray<Finding>): boolean =>
  findings.some(({ check, verdict }) => check === "guests" && verdict === "ok")
