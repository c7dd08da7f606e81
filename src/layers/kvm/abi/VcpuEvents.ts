/**
 * What a vCPU is about to take, and whether it runs: `<linux/kvm.h>` and x86's `<asm/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u8 } from "./KvmField.ts"

/** `exception` of `struct kvm_vcpu_events`. */
export const ExceptionEvent = Layout.struct("kvm_vcpu_events.exception", {
  injected: u8("injected"),
  nr: u8("nr"),
  hasErrorCode: u8("has_error_code"),
  pending: u8("pending"),
  errorCode: Field.u32("error_code")
})

/** `interrupt` of `struct kvm_vcpu_events`; `shadow` holds `InterruptShadow` bits. */
export const InterruptEvent = Layout.struct("kvm_vcpu_events.interrupt", {
  injected: u8("injected"),
  nr: u8("nr"),
  soft: u8("soft"),
  shadow: u8("shadow")
})

/** `nmi` of `struct kvm_vcpu_events`. */
export const NmiEvent = Layout.struct("kvm_vcpu_events.nmi", {
  injected: u8("injected"),
  pending: u8("pending"),
  masked: u8("masked"),
  pad: Field.reserved("pad", u8)
})

/** `smi` of `struct kvm_vcpu_events`. */
export const SmiEvent = Layout.struct("kvm_vcpu_events.smi", {
  smm: u8("smm"),
  pending: u8("pending"),
  smmInsideNmi: u8("smm_inside_nmi"),
  latchedInit: u8("latched_init")
})

/** `triple_fault` of `struct kvm_vcpu_events`. */
export const TripleFaultEvent = Layout.struct("kvm_vcpu_events.triple_fault", {
  pending: u8("pending")
})

/** `struct kvm_vcpu_events`. `flags` holds the `VcpuEventsFlag` of the members that count. */
export const VcpuEvents = Layout.struct("kvm_vcpu_events", {
  exception: Layout.nested("exception", ExceptionEvent),
  interrupt: Layout.nested("interrupt", InterruptEvent),
  nmi: Layout.nested("nmi", NmiEvent),
  sipiVector: Field.u32("sipi_vector"),
  flags: Field.u32("flags"),
  smi: Layout.nested("smi", SmiEvent),
  tripleFault: Layout.nested("triple_fault", TripleFaultEvent),
  reserved: Field.reserved("reserved", u8, 26),
  exceptionHasPayload: u8("exception_has_payload"),
  exceptionPayload: Field.u64("exception_payload")
})

export type VcpuEvents = Layout.Value<typeof VcpuEvents>

/** `KVM_VCPUEVENT_VALID_*`: SET_VCPU_EVENTS leaves alone what has no flag. */
export const VcpuEventsFlag = {
  NMI_PENDING: 0x1,
  SIPI_VECTOR: 0x2,
  SHADOW: 0x4,
  SMM: 0x8,
  PAYLOAD: 0x10,
  TRIPLE_FAULT: 0x20
} as const

/** `KVM_X86_SHADOW_*`: the instruction before holds interrupts off for one more. */
export const InterruptShadow = { INT_MOV_SS: 0x1, INT_STI: 0x2 } as const

/** `struct kvm_mp_state`: an `MpStateCode`. */
export const MpState = Layout.struct("kvm_mp_state", { mpState: Field.u32("mp_state") })

export type MpState = Layout.Value<typeof MpState>

/** `KVM_MP_STATE_*`, those of x86. */
export const MpStateCode = {
  RUNNABLE: 0,
  UNINITIALIZED: 1,
  INIT_RECEIVED: 2,
  HALTED: 3,
  SIPI_RECEIVED: 4,
  AP_RESET_HOLD: 9
} as const
