/**
 * Files between KVM and this process in `<linux/kvm.h>`: a write to one raises an interrupt, a guest's write to an
 * address signals the other.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { i32, u8 } from "./KvmField.ts"

/** `struct kvm_irqfd`. `resamplefd` counts only with its flag. */
export const IrqFd = Layout.struct("kvm_irqfd", {
  fd: Field.u32("fd"),
  gsi: Field.u32("gsi"),
  flags: Field.u32("flags"),
  resamplefd: Field.u32("resamplefd"),
  pad: Field.reserved("pad", u8, 16)
})

/** `KVM_IRQFD_FLAG_*`. */
export const IrqFdFlag = { DEASSIGN: 0x1, RESAMPLE: 0x2 } as const

/** `struct kvm_ioeventfd`. `len` is 1, 2, 4 or 8 bytes, or 0 for any; `datamatch` counts only with its flag. */
export const IoEventFd = Layout.struct("kvm_ioeventfd", {
  datamatch: Field.u64("datamatch"),
  addr: Field.u64("addr"),
  len: Field.u32("len"),
  fd: i32("fd"),
  flags: Field.u32("flags"),
  pad: Field.reserved("pad", u8, 36)
})

/** `KVM_IOEVENTFD_FLAG_*`. */
export const IoEventFdFlag = { DATAMATCH: 0x1, PIO: 0x2, DEASSIGN: 0x4 } as const
