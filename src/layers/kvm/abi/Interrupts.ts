/**
 * Raising interrupts, in `<linux/kvm.h>`; and the local APIC's registers, in x86's `<asm/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u8 } from "./KvmField.ts"

/** `struct kvm_irq_level`: `irq` is a GSI; `level` is 0 or 1. */
export const IrqLevel = Layout.struct("kvm_irq_level", {
  irq: Field.u32("irq"),
  level: Field.u32("level")
})

/** `struct kvm_msi`. `devid` counts only with a flag that x86 does not take. */
export const Msi = Layout.struct("kvm_msi", {
  addressLo: Field.u32("address_lo"),
  addressHi: Field.u32("address_hi"),
  data: Field.u32("data"),
  flags: Field.u32("flags"),
  devid: Field.u32("devid"),
  pad: Field.reserved("pad", u8, 12)
})

/** `struct kvm_interrupt`: a vector for a vCPU without an in-kernel interrupt controller. */
export const Interrupt = Layout.struct("kvm_interrupt", { irq: Field.u32("irq") })

/** `struct kvm_lapic_state`: the register page's first 1024 bytes. */
export const LapicState = Layout.struct("kvm_lapic_state", { regs: Field.bytes("regs", 0x400) })

export type LapicState = Layout.Value<typeof LapicState>
