/**
 * Whether this machine can run VMs on ACRN, and if not, why: what the facts mean.
 */
import { formatRefusal, isSupportedPlatform, koffiFinding, platformFinding } from "./common.ts"
import type { AcrnFacts } from "./Facts.ts"
import type { Finding } from "./Finding.ts"

const hypervisorFinding = ({ device, hypervisor }: AcrnFacts): Finding => {
  const check = "hypervisor"
  if (hypervisor === "acrn" || device._tag === "Opened") return { check, verdict: "ok", detail: "ACRN" }
  if (hypervisor === undefined) {
    return {
      check,
      verdict: "unknown",
      detail: "it cannot be told which hypervisor this machine runs on",
      remedy: "see `dmesg | grep -i hypervisor`: it must say ACRN"
    }
  }
  return {
    check,
    verdict: "missing",
    detail: hypervisor === "none" ? "this machine runs on no hypervisor" : `this machine runs on ${hypervisor}`,
    remedy: "boot ACRN's hypervisor on the board, and this system as its Service VM"
  }
}

const NEEDED = ["CONFIG_ACRN_GUEST", "CONFIG_ACRN_HSM"]

const kernelFinding = ({ device, options }: AcrnFacts): Finding => {
  const check = "kernel"
  if (device._tag !== "Absent") return { check, verdict: "ok", detail: "it has ACRN's driver" }
  if (options === undefined) {
    return {
      check,
      verdict: "unknown",
      detail: "its configuration cannot be read",
      remedy: `it must have been built with ${NEEDED.join(" and ")}`
    }
  }
  const missing = NEEDED.filter((name) => !options.has(name))
  if (missing.length > 0) {
    return {
      check,
      verdict: "missing",
      detail: `it was built without ${missing.join(" and ")}`,
      remedy: "build it with them, or install the Service VM kernel of your ACRN release"
    }
  }
  return { check, verdict: "ok", detail: `${NEEDED.join(" and ")} are set` }
}

/** Why there is no device, from what else is known. */
const absentRemedy = ({ hypervisor, options }: AcrnFacts): string => {
  if (options?.get("CONFIG_ACRN_HSM") === "m") return "load the driver: modprobe acrn"
  if (hypervisor === "acrn") {
    return "the driver registers it in the Service VM alone: this may be a User VM, or its kernel lacks the driver"
  }
  return "the driver registers it only when the kernel runs as the Service VM of an ACRN hypervisor"
}

const deviceFinding = (facts: AcrnFacts): Finding => {
  const { device, path, user } = facts
  const check = "device"
  switch (device._tag) {
    case "Opened":
      return { check, verdict: "ok", detail: `${path} can be opened` }
    case "Absent":
      return { check, verdict: "missing", detail: `there is no ${path}`, remedy: absentRemedy(facts) }
    case "Refused": {
      const isPrivilege = device.code === "EACCES" || device.code === "EPERM"
      return {
        check,
        verdict: "missing",
        detail: formatRefusal(path, device, user),
        remedy: isPrivilege
          ? "run as root, or let a group have it: " +
            "echo 'KERNEL==\"acrn_hsm\", GROUP=\"acrn\", MODE=\"0660\"' > /etc/udev/rules.d/60-acrn.rules"
          : "see the end of `dmesg`"
      }
    }
  }
}

/** What each fact means, from the ground up. */
export const diagnose = (facts: AcrnFacts): ReadonlyArray<Finding> => {
  const platform = platformFinding(
    facts,
    "ACRN's driver is part of Linux on x86-64: run this in the Service VM of an ACRN machine"
  )
  return isSupportedPlatform(facts)
    ? [platform, ...[hypervisorFinding, kernelFinding, deviceFinding, koffiFinding].map((finding) => finding(facts))]
    : [platform]
}

/** Whether VMs can run on ACRN here: only the device itself proves it. */
export const isReady = (findings: ReadonlyArray<Finding>): boolean =>
  findings.every(({ verdict }) => verdict !== "missing") &&
  findings.some(({ check, verdict }) => check === "device" && verdict === "ok")
