/**
 * Why KVM_RUN came back: the numbers of `<linux/kvm.h>`, each under C's name without its prefix.
 */

/** `KVM_EXIT_*`, those that x86 can give. */
export const ExitReason = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  SET_TPR: 11,
  TPR_ACCESS: 12,
  NMI: 16,
  INTERNAL_ERROR: 17,
  WATCHDOG: 21,
  SYSTEM_EVENT: 24,
  IOAPIC_EOI: 26,
  HYPERV: 27,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
  AP_RESET_HOLD: 32,
  X86_BUS_LOCK: 33,
  XEN: 34,
  NOTIFY: 37
} as const

/** `KVM_SYSTEM_EVENT_*`: the `type` of a SYSTEM_EVENT exit. */
export const SystemEvent = { SHUTDOWN: 1, RESET: 2, CRASH: 3, WAKEUP: 4, SUSPEND: 5, SEV_TERM: 6 } as const

/** `KVM_INTERNAL_ERROR_*`: the `suberror` of an INTERNAL_ERROR exit. */
export const InternalError = { EMULATION: 1, SIMUL_EX: 2, DELIVERY_EV: 3, UNEXPECTED_EXIT_REASON: 4 } as const

/** `KVM_INTERNAL_ERROR_EMULATION_FLAG_*`: which members of an emulation failure hold something. */
export const EmulationFailureFlag = { INSTRUCTION_BYTES: 0x1n } as const

/** `KVM_EXIT_IO_*`: the `direction` of an IO exit, from the guest's side. */
export const IoDirection = { IN: 0, OUT: 1 } as const

/** `KVM_MSR_EXIT_REASON_*`: the `reason` of an MSR exit; also the bits that the capability X86_USER_SPACE_MSR takes. */
export const MsrExitReason = { INVAL: 0x1, UNKNOWN: 0x2, FILTER: 0x4 } as const

const namer = (prefix: string, codes: Readonly<Record<string, number>>): (code: number) => string => {
  const names = new Map(Object.entries(codes).map(([name, code]) => [code, `${prefix}${name} (${code})`]))
  return (code) => names.get(code) ?? `${prefix}${code}`
}

/** `KVM_EXIT_IO (2)`, or `KVM_EXIT_99` for a number without a name here. */
export const exitReasonName = namer("KVM_EXIT_", ExitReason)

/** `KVM_SYSTEM_EVENT_RESET (2)`, or `KVM_SYSTEM_EVENT_99`. */
export const systemEventName = namer("KVM_SYSTEM_EVENT_", SystemEvent)

/** `KVM_INTERNAL_ERROR_EMULATION (1)`, or `KVM_INTERNAL_ERROR_99`. */
export const internalErrorName = namer("KVM_INTERNAL_ERROR_", InternalError)
