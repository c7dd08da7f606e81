/**
 * Whether this machine can run VMs on ACRN, and if not, why: facts that are looked up, and what they mean.
 */
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { closeSync, constants, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs"
import { release } from "node:os"
import { gunzipSync } from "node:zlib"

/** Whether something is there, or why it cannot be used. */
type Availability =
  | { readonly _tag: "Usable"; readonly detail: string }
  | { readonly _tag: "Unusable"; readonly problem: string }

/** The device file: what opening it gave, and whose it is. */
type DeviceFact =
  | { readonly _tag: "Opened" }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Refused"; readonly code: string; readonly owner: string; readonly mode: string }

/**
 * - `hypervisor`: what this machine runs on: `acrn`, `none`, another's name, or undefined when it could not be told.
 * - `options`: the kernel's options by name, each `y` or `m`; undefined when its configuration is not to be read.
 */
export interface Facts {
  readonly platform: string
  readonly kernel: string
  readonly hypervisor: string | undefined
  readonly options: ReadonlyMap<string, string> | undefined
  readonly koffi: Availability
  readonly path: string
  readonly device: DeviceFact
  readonly user: string
}

export interface Finding {
  readonly check: string
  readonly verdict: "ok" | "missing" | "unknown"
  readonly detail: string
  /** What to do about it. */
  readonly remedy?: string
}

const SUPPORTED = "linux x64"

const platformFinding = ({ kernel, platform }: Facts): Finding =>
  platform === SUPPORTED ? { check: "platform", verdict: "ok", detail: `Linux ${kernel} on x86-64` } : {
    check: "platform",
    verdict: "missing",
    detail: `this is ${platform}`,
    remedy: "ACRN's driver is part of Linux on x86-64: run this in the Service VM of an ACRN machine"
  }

const hypervisorFinding = ({ device, hypervisor }: Facts): Finding => {
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

const kernelFinding = ({ device, options }: Facts): Finding => {
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

const koffiFinding = ({ koffi }: Facts): Finding =>
  koffi._tag === "Usable" ? { check: "koffi", verdict: "ok", detail: koffi.detail } : {
    check: "koffi",
    verdict: "missing",
    detail: koffi.problem,
    remedy: "npm install koffi@3.3.4"
  }

/** Why there is no device, from what else is known. */
const absentRemedy = ({ hypervisor, options }: Facts): string => {
  if (options?.get("CONFIG_ACRN_HSM") === "m") return "load the driver: modprobe acrn"
  if (hypervisor === "acrn") {
    return "the driver registers it in the Service VM alone: this may be a User VM, or its kernel lacks the driver"
  }
  return "the driver registers it only when the kernel runs as the Service VM of an ACRN hypervisor"
}

const deviceFinding = (facts: Facts): Finding => {
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
        detail: `${path} (${device.owner}, mode ${device.mode}) cannot be opened by ${user}: ${device.code}`,
        remedy: isPrivilege
          ? "run as root, or let a group have it: " +
            "echo 'KERNEL==\"acrn_hsm\", GROUP=\"acrn\", MODE=\"0660\"' > /etc/udev/rules.d/60-acrn.rules"
          : "see the end of `dmesg`"
      }
    }
  }
}

/** What each fact means, from the ground up. */
export const diagnose = (facts: Facts): ReadonlyArray<Finding> =>
  facts.platform === SUPPORTED
    ? [platformFinding, hypervisorFinding, kernelFinding, deviceFinding, koffiFinding].map((finding) => finding(facts))
    : [platformFinding(facts)]

/** Whether VMs can run on ACRN here: only the device itself proves it. */
export const isReady = (findings: ReadonlyArray<Finding>): boolean =>
  findings.every(({ verdict }) => verdict !== "missing") &&
  findings.some(({ check, verdict }) => check === "device" && verdict === "ok")

const MARK = { ok: "ok", missing: "MISSING", unknown: "unknown" } as const

/** The findings as text: a line each, and below it what to do. */
export const format = (findings: ReadonlyArray<Finding>): string =>
  [
    ...findings.flatMap(({ check, detail, remedy, verdict }) => [
      `${check.padEnd(11)}${MARK[verdict].padEnd(9)}${detail}`,
      ...remedy === undefined ? [] : [`${" ".repeat(20)}-> ${remedy}`]
    ]),
    "",
    isReady(findings)
      ? "VMs can run on ACRN here."
      : "VMs cannot run on ACRN here; the other hypervisor layers need none of this."
  ].join("\n")

/** Options that are set, from a kernel's configuration file. */
export const parseOptions = (text: string): ReadonlyMap<string, string> =>
  new Map([...text.matchAll(/^(CONFIG_\w+)=([ym])$/gm)].map(([, name, value]) => [name!, value!]))

const orUndefined = <A>(look: () => A): A | undefined => {
  try {
    return look()
  } catch {
    return undefined
  }
}

const readOptions = (kernel: string): ReadonlyMap<string, string> | undefined => {
  const text = orUndefined(() => gunzipSync(readFileSync("/proc/config.gz")).toString()) ??
    orUndefined(() => readFileSync(`/boot/config-${kernel}`, "utf8"))
  return text === undefined ? undefined : parseOptions(text)
}

const HYPERVISOR_LEAF = 0x4000_0000

/** The twelve letters by which a hypervisor names itself to CPUID. */
const readSignature = (): string | undefined =>
  orUndefined(() => {
    const fd = openSync("/dev/cpu/0/cpuid", "r")
    try {
      const registers = Buffer.alloc(16)
      readSync(fd, registers, 0, 16, HYPERVISOR_LEAF)
      return registers.toString("latin1", 4, 16)
    } finally {
      closeSync(fd)
    }
  })

const findHypervisor = (): string | undefined => {
  const flags = orUndefined(() => readFileSync("/proc/cpuinfo", "utf8"))
  if (flags !== undefined && !/^flags\s*:.*\bhypervisor\b/m.test(flags)) return "none"
  if (readSignature() === "ACRNACRNACRN") return "acrn"
  const detected = orUndefined(() =>
    execFileSync("systemd-detect-virt", ["--vm"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  )
  return detected === "" ? undefined : detected
}

const tryDevice = (path: string): DeviceFact => {
  try {
    closeSync(openSync(path, constants.O_RDWR))
    return { _tag: "Opened" }
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
    if (code === "ENOENT" || !existsSync(path)) return { _tag: "Absent" }
    const { gid, mode, uid } = statSync(path)
    return { _tag: "Refused", code, owner: `owner ${uid}:${gid}`, mode: (mode & 0o7777).toString(8).padStart(4, "0") }
  }
}

const tryKoffi = async (): Promise<Availability> => {
  try {
    const { default: koffi } = await import("koffi")
    return { _tag: "Usable", detail: `version ${koffi.version}` }
  } catch (cause) {
    return { _tag: "Unusable", problem: String(cause).split("\n", 1)[0]! }
  }
}

/** Looks this machine up. It opens the device once, and changes nothing. */
export const gather = (path = "/dev/acrn_hsm"): Effect.Effect<Facts> =>
  Effect.promise(async () => {
    const kernel = release()
    return {
      platform: `${process.platform} ${process.arch}`,
      kernel,
      hypervisor: findHypervisor(),
      options: readOptions(kernel),
      koffi: await tryKoffi(),
      path,
      device: tryDevice(path),
      user: process.getuid?.() === 0 ? "root" : `user ${process.getuid?.() ?? "unknown"}`
    }
  })
