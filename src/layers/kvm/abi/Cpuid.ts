/**
 * What CPUID answers a guest, in x86's `<asm/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import * as CountedList from "./CountedList.ts"

/** `struct kvm_cpuid_entry2`: one leaf, or with a `CpuidFlag` one subleaf. */
export const CpuidEntry2 = Layout.struct("kvm_cpuid_entry2", {
  function: Field.u32("function"),
  index: Field.u32("index"),
  flags: Field.u32("flags"),
  eax: Field.u32("eax"),
  ebx: Field.u32("ebx"),
  ecx: Field.u32("ecx"),
  edx: Field.u32("edx"),
  padding: Field.reserved("padding", Field.u32, 3)
})

export type CpuidEntry2 = Layout.Value<typeof CpuidEntry2>

/** `KVM_CPUID_FLAG_*`: `index` counts, under the spelling that C gives it. */
export const CpuidFlag = { SIGNIFCANT_INDEX: 0x1 } as const

/** `struct kvm_cpuid2`. */
export const Cpuid2Header = Layout.struct("kvm_cpuid2", {
  nent: Field.u32("nent"),
  padding: Field.reserved("padding", Field.u32),
  entries: Field.tail("entries", CpuidEntry2)
})

/** What GET_SUPPORTED_CPUID, GET_CPUID2 and SET_CPUID2 take. With too little room a GET fails with E2BIG. */
export const Cpuid2 = CountedList.make(Cpuid2Header, Layout.nested("entries", CpuidEntry2))
