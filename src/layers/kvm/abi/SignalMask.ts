/**
 * The signals that are blocked while KVM_RUN runs, in `<linux/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u8 } from "./KvmField.ts"

/** `struct kvm_signal_mask`: `len` bytes of `sigset` follow, 8 on x86-64. */
export const SignalMask = Layout.struct("kvm_signal_mask", {
  len: Field.u32("len"),
  sigset: Field.tail("sigset", u8("sigset"))
})
