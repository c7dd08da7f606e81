/**
 * /dev/kvm itself: whether it can be used, and what it can do.
 */
import * as Result from "effect/Result"
import { Errno } from "../../domain/Errno.ts"
import type { Libc } from "../native/Libc.ts"
import { Capability, capabilityCName, type CapabilityName } from "./abi/Capability.ts"
import { Cpuid2, type CpuidEntry2 } from "./abi/Cpuid.ts"
import { API_VERSION, KvmIoctl } from "./abi/KvmIoctl.ts"
import type { KvmErrorReason } from "./KvmError.ts"

/** What the layer cannot do without. */
export const NEEDED: ReadonlyArray<CapabilityName> = ["USER_MEMORY", "IMMEDIATE_EXIT", "MP_STATE", "READONLY_MEM"]

const ADDRESS_SIZES_LEAF = 0x8000_0008
const LEAST_ADDRESS_BITS = 36
const MOST_CPUID_LEAVES = 1024

export interface KvmSystem {
  readonly fd: number
  readonly cpuid: ReadonlyArray<CpuidEntry2>
  /** Bits of a guest physical address. */
  readonly addressBits: number
  /** Bytes of the memory that the kernel shares for each vCPU. */
  readonly runBytes: number
  readonly maxSlots: number
  readonly maxVcpus: number
  /** What the capability's number says, 0 for none. */
  readonly extension: (name: CapabilityName) => number
}

/** Opens the device and looks at it; closes it again when it cannot be used. */
export const openSystem = (libc: Libc, path: string): Result.Result<KvmSystem, KvmErrorReason> => {
  const fd = libc.open(path)
  if (fd < 0) return Result.fail({ _tag: "NoDevice", path, errno: -fd })
  const looked = lookAt(libc, fd)
  if (Result.isFailure(looked)) libc.close(fd)
  return looked
}

const lookAt = (libc: Libc, fd: number): Result.Result<KvmSystem, KvmErrorReason> => {
  const version = libc.ioctl(fd, KvmIoctl.GET_API_VERSION, 0)
  if (version !== API_VERSION) return Result.fail({ _tag: "WrongVersion", version })
  const extension = (name: CapabilityName) => Math.max(0, libc.ioctl(fd, KvmIoctl.CHECK_EXTENSION, Capability[name]))
  const missing = NEEDED.find((name) => extension(name) === 0)
  if (missing !== undefined) return Result.fail({ _tag: "NoCapability", capability: capabilityCName(missing) })
  const runBytes = libc.ioctl(fd, KvmIoctl.GET_VCPU_MMAP_SIZE, 0)
  if (runBytes < 0) return Result.fail({ _tag: "Refused", ioctl: "KVM_GET_VCPU_MMAP_SIZE", errno: -runBytes })
  return Result.map(supportedCpuid(libc, fd), (cpuid) => ({
    fd,
    cpuid,
    addressBits: addressBitsOf(cpuid),
    runBytes,
    maxSlots: extension("NR_MEMSLOTS"),
    maxVcpus: extension("MAX_VCPUS") || extension("NR_VCPUS") || 4,
    extension
  }))
}

const supportedCpuid = (libc: Libc, fd: number): Result.Result<ReadonlyArray<CpuidEntry2>, KvmErrorReason> => {
  for (let room = 64; room <= MOST_CPUID_LEAVES; room *= 2) {
    const bytes = Cpuid2.room(room)
    const result = libc.ioctlAt(fd, KvmIoctl.GET_SUPPORTED_CPUID, bytes)
    if (result >= 0) return Result.succeed(Result.getOrThrow(Cpuid2.decode(bytes)))
    if (result !== -Errno.E2BIG) {
      return Result.fail({ _tag: "Refused", ioctl: "KVM_GET_SUPPORTED_CPUID", errno: -result })
    }
  }
  return Result.fail({ _tag: "Refused", ioctl: "KVM_GET_SUPPORTED_CPUID", errno: Errno.E2BIG })
}

const addressBitsOf = (cpuid: ReadonlyArray<CpuidEntry2>): number => {
  const leaf = cpuid.find((entry) => entry.function === ADDRESS_SIZES_LEAF)
  return Math.min(52, Math.max(LEAST_ADDRESS_BITS, leaf === undefined ? 0 : leaf.eax & 0xff))
}
