/**
 * What CPUID answers the guest: what this KVM supports, with each vCPU's own number in it.
 */
import type { CpuidEntry2 } from "./abi/Cpuid.ts"

const FEATURES = 0x1
const CACHE_TOPOLOGY = 0x4
const TOPOLOGY = 0xb
const TOPOLOGY_2 = 0x1f

// Leaf 1, ECX.
const MONITOR = 1 << 3
const X2APIC = 1 << 21
const HYPERVISOR = 1 << 31
// Leaf 1, EDX.
const MULTIPLE_THREADS = 1 << 28

// EBX of leaf 1: the number of this logical processor, and of all in the package.
const APIC_ID_SHIFT = 24
const COUNT_SHIFT = 16
const CACHE_LINES = 0xffff

const THREAD_LEVEL = 1 << 8
const CORE_LEVEL = 2 << 8

const bitsFor = (count: number): number => Math.ceil(Math.log2(count))

/**
 * The leaves for one vCPU of `vcpus`, each a core of one package. MONITOR is taken away: no KVM lets a guest wait with it
 * unless it was told to.
 */
export const leavesFor = (
  supported: ReadonlyArray<CpuidEntry2>,
  vcpu: number,
  vcpus: number
): ReadonlyArray<CpuidEntry2> =>
  supported.map((entry) => {
    switch (entry.function) {
      case FEATURES:
        return {
          ...entry,
          ebx: (entry.ebx & CACHE_LINES | vcpus << COUNT_SHIFT | vcpu << APIC_ID_SHIFT) >>> 0,
          ecx: ((entry.ecx & ~MONITOR) | X2APIC | HYPERVISOR) >>> 0,
          edx: (vcpus > 1 ? entry.edx | MULTIPLE_THREADS : entry.edx & ~MULTIPLE_THREADS) >>> 0
        }
      case CACHE_TOPOLOGY:
        // Bits 31..26: cores in the package less one; bits 25..14: processors that share this cache less one.
        return entry.eax === 0 ? entry : { ...entry, eax: (entry.eax & 0x3fff | vcpus - 1 << 26) >>> 0 }
      case TOPOLOGY:
      case TOPOLOGY_2:
        return {
          ...entry,
          eax: entry.index === 1 ? bitsFor(vcpus) : 0,
          ebx: entry.index === 0 ? 1 : entry.index === 1 ? vcpus : 0,
          ecx: entry.index === 0 ? THREAD_LEVEL : entry.index === 1 ? CORE_LEVEL | 1 : entry.index,
          edx: vcpu
        }
      default:
        return entry
    }
  })
