/**
 * What CPUID answers the guest: what this KVM supports, with each vCPU's place among the others in it, and without what
 * the VM has not. Each vCPU is a core of its own in one package.
 *
 * Sources: the answers, Intel SDM volume 2 (CPUID) and AMD APM volume 3 (appendix E); what GET_SUPPORTED_CPUID leaves to
 * its caller, Linux Documentation/virt/kvm/api.rst, section 4.46 and "x86 kvm_cpuid"; features of KVM's own leaf,
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
import { type CpuidEntry2, CpuidFlag } from "./abi/Cpuid.ts"

export interface CpuidOptions {
  /** The vCPU's number, which is its APIC id, and how many there are. */
  readonly vcpu: number
  readonly vcpus: number
  readonly hasLocalApic: boolean
  /** The kernel's local APIC can fire when the time stamp counter reaches a value. */
  readonly hasTscDeadline: boolean
}

const Leaf = {
  vendor: 0,
  features: 1,
  cacheTopology: 4,
  monitor: 5,
  topology: 0xb,
  topologyV2: 0x1f,
  kvmFeatures: 0x4000_0001,
  extendedFeatures: 0x8000_0001,
  addressSizes: 0x8000_0008,
  nestedVirtualization: 0x8000_000a,
  amdCacheTopology: 0x8000_001d,
  amdTopology: 0x8000_001e
} as const

// Leaf 1.
const Ecx = {
  monitor: 1 << 3,
  vmx: 1 << 5,
  x2Apic: 1 << 21,
  tscDeadline: 1 << 24,
  osXsave: 1 << 27,
  hypervisor: 1 << 31
}
const Edx = { apic: 1 << 9, multipleThreads: 1 << 28 }
const APIC_ID_SHIFT = 24
const COUNT_SHIFT = 16

// Leaf 0x80000001.
const AmdEcx = { manyCores: 1 << 1, svm: 1 << 2, extendedApic: 1 << 3, monitorX: 1 << 29 }

// KVM's own leaf: what it does by way of the local APIC.
const KvmEax = {
  asyncPageFault: 1 << 4,
  endOfInterrupt: 1 << 6,
  unhalt: 1 << 7,
  asyncPageFaultExit: 1 << 10,
  sendIpi: 1 << 11,
  schedYield: 1 << 13,
  asyncPageFaultInterrupt: 1 << 14,
  msiExtendedDestination: 1 << 15
}

const anyOf = (bits: Readonly<Record<string, number>>): number => Object.values(bits).reduce((all, bit) => all | bit, 0)

const withBit = (word: number, bit: number, isSet: boolean): number => (isSet ? word | bit : word & ~bit) >>> 0

/** The bits that tell `count` processors apart. */
const bitsFor = (count: number): number => Math.ceil(Math.log2(count))

// The names of the vendors whose leaves beyond 0x80000000 follow AMD's manual, as leaf 0 has them in EBX.
const AMD_FAMILY: ReadonlySet<number> = new Set([0x6874_7541, 0x6f67_7948])

/** The leaves for one vCPU: those of KVM in their order, a topology leaf with all its levels. */
export const leavesFor = (
  supported: ReadonlyArray<CpuidEntry2>,
  options: CpuidOptions
): ReadonlyArray<CpuidEntry2> => {
  const vendor = supported.find((entry) => entry.function === Leaf.vendor)
  const isAmd = vendor !== undefined && AMD_FAMILY.has(vendor.ebx)
  return supported.flatMap((entry) => {
    const isTopology = entry.function === Leaf.topology || entry.function === Leaf.topologyV2
    if (!isTopology) return [leafFor(entry, options, isAmd)]
    // KVM lists as many levels as the host has, which says nothing of the guest.
    return entry.index === 0 ? topologyLevels(entry, options) : []
  })
}

const leafFor = (entry: CpuidEntry2, options: CpuidOptions, isAmd: boolean): CpuidEntry2 => {
  const { hasLocalApic, vcpu, vcpus } = options
  switch (entry.function) {
    case Leaf.features:
      return features(entry, options)
    case Leaf.cacheTopology:
      return sharedCache(entry, 2 ** bitsFor(vcpus) - 1, (2 ** bitsFor(vcpus) - 1) << 26)
    case Leaf.monitor:
    case Leaf.nestedVirtualization:
      return { ...entry, eax: 0, ebx: 0, ecx: 0, edx: 0 }
    case Leaf.kvmFeatures:
      return hasLocalApic ? entry : { ...entry, eax: withBit(entry.eax, anyOf(KvmEax), false) }
    case Leaf.extendedFeatures:
      return isAmd ? amdFeatures(entry, options) : entry
    case Leaf.addressSizes:
      return isAmd
        ? { ...entry, ecx: (entry.ecx & ~0xf0ff | bitsFor(vcpus) << 12 | vcpus - 1) >>> 0 }
        : entry
    case Leaf.amdCacheTopology:
      return sharedCache(entry, vcpus - 1, 0)
    case Leaf.amdTopology:
      // The APIC id; the core's number, with one thread each; the node, of one.
      return { ...entry, eax: vcpu, ebx: vcpu, ecx: 0, edx: 0 }
    default:
      return entry
  }
}

/**
 * MONITOR is off, since no KVM lets a guest wait with it unless told to; OSXSAVE is KVM's to set when the guest sets
 * CR4; and VMX and SVM are off, since nested guests are no part of a vCPU's snapshot.
 */
const features = (entry: CpuidEntry2, options: CpuidOptions): CpuidEntry2 => {
  const { hasLocalApic, hasTscDeadline, vcpu, vcpus } = options
  let ecx = withBit(entry.ecx, Ecx.monitor | Ecx.vmx | Ecx.osXsave, false)
  ecx = withBit(ecx, Ecx.hypervisor, true)
  ecx = withBit(ecx, Ecx.x2Apic, hasLocalApic)
  ecx = withBit(ecx, Ecx.tscDeadline, hasLocalApic && hasTscDeadline)
  const edx = withBit(entry.edx, Edx.multipleThreads, vcpus > 1)
  return {
    ...entry,
    // The low half is the size of a cache line, and the brand. KVM gives the number of the processor that was asked.
    ebx: (entry.ebx & 0xffff | vcpus << COUNT_SHIFT | vcpu << APIC_ID_SHIFT) >>> 0,
    ecx,
    edx: withBit(edx, Edx.apic, hasLocalApic)
  }
}

const amdFeatures = (entry: CpuidEntry2, { hasLocalApic, vcpus }: CpuidOptions): CpuidEntry2 => ({
  ...entry,
  ecx: withBit(
    withBit(entry.ecx, AmdEcx.svm | AmdEcx.extendedApic | AmdEcx.monitorX, false),
    AmdEcx.manyCores,
    vcpus > 1
  ),
  // A copy of leaf 1's.
  edx: withBit(entry.edx, Edx.apic, hasLocalApic)
})

/**
 * One level of cache: bits 4..0 of EAX are its kind, 0 for none; 7..5 its level; 25..14 the processors that share it,
 * less one. The first two levels belong to a core, others to all.
 */
const sharedCache = (entry: CpuidEntry2, sharing: number, cores: number): CpuidEntry2 => {
  if ((entry.eax & 0x1f) === 0) return entry
  const level = entry.eax >>> 5 & 7
  return { ...entry, eax: (entry.eax & 0x3fff | (level < 3 ? 0 : sharing << 14) | cores) >>> 0 }
}

/**
 * Each level tells its kind (1 a thread of a core, 2 a core of the package), how many processors it holds, and by how
 * many bits an APIC id is shifted to the next. EDX is the APIC id at every level, also at the one that ends the list.
 */
const topologyLevels = (entry: CpuidEntry2, { vcpu, vcpus }: CpuidOptions): ReadonlyArray<CpuidEntry2> => {
  const level = (index: number, kind: number, shift: number, processors: number): CpuidEntry2 => ({
    ...entry,
    index,
    flags: CpuidFlag.SIGNIFCANT_INDEX,
    eax: shift,
    ebx: processors,
    ecx: kind << 8 | index,
    edx: vcpu
  })
  return [level(0, 1, 0, 1), level(1, 2, bitsFor(vcpus), vcpus), level(2, 0, 0, 0)]
}

// What processors of x86-64-v2 have, but for SSE4a and the like: SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; and
// what depends on the VM.
const PLAIN_ECX = 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23 | Ecx.x2Apic | Ecx.tscDeadline
// From FPU to PSE-36 without the serial number, CLFLUSH, MMX, FXSR, SSE and SSE2.
const PLAIN_EDX = 0x078b_fbff
// LAHF in 64-bit mode and the count of cores; SYSCALL, no-execute, 64-bit mode, and AMD's copy of leaf 1.
const PLAIN_EXTENDED_ECX = 1 << 0 | AmdEcx.manyCores
const PLAIN_EXTENDED_EDX = 1 << 11 | 1 << 20 | 1 << 29

const LAST_PLAIN_LEAF = Leaf.topology
const LAST_PLAIN_EXTENDED_LEAF = Leaf.addressSizes
const KVM_LEAVES = 0x4000_0000
const EXTENDED_LEAVES = 0x8000_0000

const isPlain = (leaf: number): boolean =>
  leaf <= Leaf.features || leaf === Leaf.cacheTopology || leaf === Leaf.topology ||
  leaf >= KVM_LEAVES && leaf <= Leaf.kvmFeatures || leaf >= EXTENDED_LEAVES && leaf <= LAST_PLAIN_EXTENDED_LEAF

/**
 * The part of these leaves that any x86-64 processor of the last fifteen years has: for a KVM that refuses what it says
 * it supports, and for guests that shall find the same processor on different machines.
 */
export const plainLeaves = (supported: ReadonlyArray<CpuidEntry2>): ReadonlyArray<CpuidEntry2> =>
  supported.filter((entry) => isPlain(entry.function)).map((entry) => {
    switch (entry.function) {
      case Leaf.vendor:
        return { ...entry, eax: LAST_PLAIN_LEAF }
      case EXTENDED_LEAVES:
        return { ...entry, eax: Math.min(entry.eax, LAST_PLAIN_EXTENDED_LEAF) }
      case Leaf.features:
        return { ...entry, ecx: (entry.ecx & PLAIN_ECX) >>> 0, edx: (entry.edx & PLAIN_EDX) >>> 0 }
      case Leaf.extendedFeatures:
        return {
          ...entry,
          ebx: 0,
          ecx: (entry.ecx & PLAIN_EXTENDED_ECX) >>> 0,
          edx: (entry.edx & PLAIN_EXTENDED_EDX) >>> 0
        }
      case Leaf.addressSizes:
        return { ...entry, ebx: 0 }
      default:
        return entry
    }
  })
