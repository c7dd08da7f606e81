/**
 * The registers of a vCPU in x86's `<asm/kvm.h>`: general, special and debug.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u64s, u8 } from "./KvmField.ts"

/** `struct kvm_regs`. Note that its order is not that of ACRN's general registers. */
export const Regs = Layout.struct("kvm_regs", {
  rax: Field.u64("rax"),
  rbx: Field.u64("rbx"),
  rcx: Field.u64("rcx"),
  rdx: Field.u64("rdx"),
  rsi: Field.u64("rsi"),
  rdi: Field.u64("rdi"),
  rsp: Field.u64("rsp"),
  rbp: Field.u64("rbp"),
  r8: Field.u64("r8"),
  r9: Field.u64("r9"),
  r10: Field.u64("r10"),
  r11: Field.u64("r11"),
  r12: Field.u64("r12"),
  r13: Field.u64("r13"),
  r14: Field.u64("r14"),
  r15: Field.u64("r15"),
  rip: Field.u64("rip"),
  rflags: Field.u64("rflags")
})

export type Regs = Layout.Value<typeof Regs>

/** `struct kvm_segment`: a segment register with its hidden part, one byte for each bit field of the descriptor. */
export const Segment = Layout.struct("kvm_segment", {
  base: Field.u64("base"),
  limit: Field.u32("limit"),
  selector: Field.u16("selector"),
  type: u8("type"),
  present: u8("present"),
  dpl: u8("dpl"),
  db: u8("db"),
  s: u8("s"),
  l: u8("l"),
  g: u8("g"),
  avl: u8("avl"),
  unusable: u8("unusable"),
  padding: Field.reserved("padding", u8)
})

export type Segment = Layout.Value<typeof Segment>

/** `struct kvm_dtable`: where a descriptor table is. */
export const Dtable = Layout.struct("kvm_dtable", {
  base: Field.u64("base"),
  limit: Field.u16("limit"),
  padding: Field.reserved("padding", Field.u16, 3)
})

export type Dtable = Layout.Value<typeof Dtable>

/** `struct kvm_sregs`. A bit of `interruptBitmap` is an external interrupt that KVM accepted but has not delivered. */
export const Sregs = Layout.struct("kvm_sregs", {
  cs: Layout.nested("cs", Segment),
  ds: Layout.nested("ds", Segment),
  es: Layout.nested("es", Segment),
  fs: Layout.nested("fs", Segment),
  gs: Layout.nested("gs", Segment),
  ss: Layout.nested("ss", Segment),
  tr: Layout.nested("tr", Segment),
  ldt: Layout.nested("ldt", Segment),
  gdt: Layout.nested("gdt", Dtable),
  idt: Layout.nested("idt", Dtable),
  cr0: Field.u64("cr0"),
  cr2: Field.u64("cr2"),
  cr3: Field.u64("cr3"),
  cr4: Field.u64("cr4"),
  cr8: Field.u64("cr8"),
  efer: Field.u64("efer"),
  apicBase: Field.u64("apic_base"),
  interruptBitmap: u64s("interrupt_bitmap", 4)
})

export type Sregs = Layout.Value<typeof Sregs>

/** `struct kvm_debugregs`: DR0 to DR3 in `db`; no flags are defined. */
export const DebugRegs = Layout.struct("kvm_debugregs", {
  db: u64s("db", 4),
  dr6: Field.u64("dr6"),
  dr7: Field.u64("dr7"),
  flags: Field.u64("flags"),
  reserved: Field.reserved("reserved", Field.u64, 9)
})

export type DebugRegs = Layout.Value<typeof DebugRegs>
