/**
 * Whether a hypervisor can make the VM that was asked for: decided from its profile, before anything is created.
 */
import { isPageAligned } from "../../domain/Address.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { MAX_VCPUS } from "../../domain/Limits.ts"
import type { VirtualMachineErrorReason } from "../VirtualMachineError.ts"

export const checkOptions = (
  profile: HypervisorProfile,
  options: { readonly vcpus: number; readonly memoryBytes: number }
): VirtualMachineErrorReason | undefined => {
  const { memoryBytes, vcpus } = options
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) {
    return { _tag: "BadOption", option: "vcpus", value: vcpus, expected: `an integer from 1 to ${MAX_VCPUS}` }
  }
  if (!Number.isSafeInteger(memoryBytes) || memoryBytes <= 0 || !isPageAligned(memoryBytes)) {
    return { _tag: "BadOption", option: "memoryBytes", value: memoryBytes, expected: "a positive multiple of 4096" }
  }
  if (vcpus > profile.maxVcpus) {
    return beyond(profile, "vCPUs", vcpus, profile.maxVcpus)
  }
  if (memoryBytes > profile.maxRamBytes) {
    return beyond(profile, "bytes of RAM", memoryBytes, profile.maxRamBytes)
  }
  return undefined
}

export const beyond = (
  profile: HypervisorProfile,
  what: string,
  asked: number | string,
  limit: number | string
): VirtualMachineErrorReason => ({ _tag: "BeyondCapability", hypervisor: profile.name, what, asked, limit })
