/**
 * The floating-point and vector state of a vCPU in x86's `<asm/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u8 } from "./KvmField.ts"

/** `struct kvm_fpu`: x87 and SSE only. `fpr` is 8 registers of 16 bytes, `xmm` 16 of 16; `ftwx` as FXSAVE has it. */
export const Fpu = Layout.struct("kvm_fpu", {
  fpr: Field.bytes("fpr", 8 * 16),
  fcw: Field.u16("fcw"),
  fsw: Field.u16("fsw"),
  ftwx: u8("ftwx"),
  pad1: Field.reserved("pad1", u8),
  lastOpcode: Field.u16("last_opcode"),
  lastIp: Field.u64("last_ip"),
  lastDp: Field.u64("last_dp"),
  xmm: Field.bytes("xmm", 16 * 16),
  mxcsr: Field.u32("mxcsr"),
  pad2: Field.reserved("pad2", Field.u32)
})

export type Fpu = Layout.Value<typeof Fpu>

/**
 * `struct kvm_xsave`: an XSAVE area of 4096 bytes, laid out as CPUID leaf 0xD says. Where the capability XSAVE2 gives
 * more bytes, `extra` begins the rest.
 */
export const Xsave = Layout.struct("kvm_xsave", {
  region: Field.bytes("region", 4096),
  extra: Field.tail("extra", Field.u32("extra"))
})

export type Xsave = Layout.Value<typeof Xsave>

/** `struct kvm_xcr`: an extended control register, by number. */
export const Xcr = Layout.struct("kvm_xcr", {
  xcr: Field.u32("xcr"),
  reserved: Field.reserved("reserved", Field.u32),
  value: Field.u64("value")
})

/** The room of `kvm_xcrs`: KVM_MAX_XCRS. */
export const MAX_XCRS = 16

/** `struct kvm_xcrs`: the first `nrXcrs` of `xcrs` count. */
export const Xcrs = Layout.struct("kvm_xcrs", {
  nrXcrs: Field.u32("nr_xcrs"),
  flags: Field.u32("flags"),
  xcrs: Layout.array("xcrs", Xcr, MAX_XCRS),
  padding: Field.reserved("padding", Field.u64, 16)
})

export type Xcrs = Layout.Value<typeof Xcrs>
