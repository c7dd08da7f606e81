/**
 * What a KVM can do: the numbers that CHECK_EXTENSION and ENABLE_CAP take, from `<linux/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u64s, u8 } from "./KvmField.ts"

/** `KVM_CAP_*`, those that concern a VMM on x86. */
export const Capability = {
  IRQCHIP: 0,
  HLT: 1,
  USER_MEMORY: 3,
  SET_TSS_ADDR: 4,
  EXT_CPUID: 7,
  CLOCKSOURCE: 8,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  PIT: 11,
  MP_STATE: 14,
  COALESCED_MMIO: 15,
  SYNC_MMU: 16,
  DESTROY_MEMORY_REGION_WORKS: 21,
  USER_NMI: 22,
  SET_GUEST_DEBUG: 23,
  REINJECT_CONTROL: 24,
  IRQ_ROUTING: 25,
  IRQ_INJECT_STATUS: 26,
  JOIN_MEMORY_REGIONS_WORKS: 30,
  MCE: 31,
  IRQFD: 32,
  PIT2: 33,
  SET_BOOT_CPU_ID: 34,
  PIT_STATE2: 35,
  IOEVENTFD: 36,
  SET_IDENTITY_MAP_ADDR: 37,
  ADJUST_CLOCK: 39,
  INTERNAL_ERROR_DATA: 40,
  VCPU_EVENTS: 41,
  INTR_SHADOW: 49,
  DEBUGREGS: 50,
  X86_ROBUST_SINGLESTEP: 51,
  ENABLE_CAP: 54,
  XSAVE: 55,
  XCRS: 56,
  TSC_CONTROL: 60,
  GET_TSC_KHZ: 61,
  MAX_VCPUS: 66,
  TSC_DEADLINE_TIMER: 72,
  SYNC_REGS: 74,
  KVMCLOCK_CTRL: 76,
  SIGNAL_MSI: 77,
  READONLY_MEM: 81,
  IRQFD_RESAMPLE: 82,
  EXT_EMUL_CPUID: 95,
  ENABLE_CAP_VM: 98,
  IOEVENTFD_NO_LENGTH: 100,
  CHECK_EXTENSION_VM: 105,
  DISABLE_QUIRKS: 116,
  X86_SMM: 117,
  SPLIT_IRQCHIP: 121,
  IOEVENTFD_ANY_LENGTH: 122,
  MAX_VCPU_ID: 128,
  X2APIC_API: 129,
  IMMEDIATE_EXIT: 136,
  X86_DISABLE_EXITS: 143,
  GET_MSR_FEATURES: 153,
  NESTED_STATE: 157,
  COALESCED_PIO: 162,
  EXCEPTION_PAYLOAD: 164,
  MANUAL_DIRTY_LOG_PROTECT2: 168,
  HALT_POLL: 182,
  LAST_CPU: 184,
  STEAL_TIME: 187,
  X86_USER_SPACE_MSR: 188,
  X86_MSR_FILTER: 189,
  ENFORCE_PV_FEATURE_CPUID: 190,
  DIRTY_LOG_RING: 192,
  X86_BUS_LOCK_EXIT: 193,
  SREGS2: 200,
  EXIT_HYPERCALL: 201,
  BINARY_STATS_FD: 203,
  EXIT_ON_EMULATION_FAILURE: 204,
  VM_GPA_BITS: 207,
  XSAVE2: 208,
  DISABLE_QUIRKS2: 213,
  VM_TSC_CONTROL: 214,
  SYSTEM_EVENT_DATA: 215,
  X86_TRIPLE_FAULT_EVENT: 218,
  X86_NOTIFY_VMEXIT: 219,
  DIRTY_LOG_RING_ACQ_REL: 223
} as const

export type CapabilityName = keyof typeof Capability

/** What C calls a capability. */
export const capabilityCName = (name: CapabilityName): string => `KVM_CAP_${name}`

/** `struct kvm_enable_cap`: `cap` is a `Capability`, which says what `args` mean. */
export const EnableCap = Layout.struct("kvm_enable_cap", {
  cap: Field.u32("cap"),
  flags: Field.u32("flags"),
  args: u64s("args", 4),
  pad: Field.reserved("pad", u8, 64)
})

/** `KVM_X86_DISABLE_EXITS_*`: the argument of X86_DISABLE_EXITS; the guest then does these without an exit. */
export const DisabledExit = { MWAIT: 0x1, HLT: 0x2, PAUSE: 0x4, CSTATE: 0x8 } as const

/** `KVM_X2APIC_API_*`: the argument of X2APIC_API. */
export const X2ApicApi = { USE_32BIT_IDS: 0x1, DISABLE_BROADCAST_QUIRK: 0x2 } as const
