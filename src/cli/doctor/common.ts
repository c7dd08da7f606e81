/**
 * Findings that every hypervisor of the kernel has in common.
 */
import { FFI } from "../../layers/native/Libc.ts"
import type { DeviceFact, MachineFacts, User } from "./Facts.ts"
import type { Finding } from "./Finding.ts"

const SUPPORTED = "linux x64"

export const isSupportedPlatform = ({ platform }: MachineFacts): boolean => platform === SUPPORTED

export const platformFinding = (facts: MachineFacts, remedy: string): Finding =>
  isSupportedPlatform(facts)
    ? { check: "platform", verdict: "ok", detail: `Linux ${facts.kernel} on x86-64` }
    : { check: "platform", verdict: "missing", detail: `this is ${facts.platform}`, remedy }

export const koffiFinding = ({ koffi }: MachineFacts): Finding =>
  koffi._tag === "Usable"
    ? { check: "koffi", verdict: "ok", detail: koffi.detail }
    : { check: "koffi", verdict: "missing", detail: koffi.problem, remedy: `npm install ${FFI}` }

/** One sentence about a device that is there and does not open. */
export const formatRefusal = (path: string, device: DeviceFact & { readonly _tag: "Refused" }, user: User): string => {
  const { code, owner } = device
  const mode = owner.mode.toString(8).padStart(4, "0")
  return `${path} (${owner.user}:${owner.group}, mode ${mode}) cannot be opened by ${user.name}: ${code}`
}
