/**
 * Model-specific registers in x86's `<asm/kvm.h>`. GET_MSRS and SET_MSRS return how many entries they did: fewer means
 * that KVM refused the next one.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import * as CountedList from "./CountedList.ts"

/** `struct kvm_msr_entry`. */
export const MsrEntry = Layout.struct("kvm_msr_entry", {
  index: Field.u32("index"),
  reserved: Field.reserved("reserved", Field.u32),
  data: Field.u64("data")
})

export type MsrEntry = Layout.Value<typeof MsrEntry>

/** `struct kvm_msrs`. */
export const MsrsHeader = Layout.struct("kvm_msrs", {
  nmsrs: Field.u32("nmsrs"),
  pad: Field.reserved("pad", Field.u32),
  entries: Field.tail("entries", MsrEntry)
})

/** What GET_MSRS and SET_MSRS take: for GET_MSRS the entries carry the indices, and KVM fills in `data`. */
export const Msrs = CountedList.make(MsrsHeader, Layout.nested("entries", MsrEntry))

/** `struct kvm_msr_list`. */
export const MsrListHeader = Layout.struct("kvm_msr_list", {
  nmsrs: Field.u32("nmsrs"),
  indices: Field.tail("indices", Field.u32("indices"))
})

/** What GET_MSR_INDEX_LIST takes. With too little room it fails with E2BIG and sets the count that it needs. */
export const MsrList = CountedList.make(MsrListHeader, Field.u32("indices"))
