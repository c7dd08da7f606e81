/**
 * The register structures of `<linux/acrn.h>`, which SET_VCPU_REGS takes.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * `struct acrn_gp_regs`: the sixteen general registers, 64 bits each.
 *
 * @category layouts
 * @since 0.1.0
 */
export const GpRegs = Layout.struct("acrn_gp_regs", {
  rax: Field.u64("rax"),
  rcx: Field.u64("rcx"),
  rdx: Field.u64("rdx"),
  rbx: Field.u64("rbx"),
  rsp: Field.u64("rsp"),
  rbp: Field.u64("rbp"),
  rsi: Field.u64("rsi"),
  rdi: Field.u64("rdi"),
  r8: Field.u64("r8"),
  r9: Field.u64("r9"),
  r10: Field.u64("r10"),
  r11: Field.u64("r11"),
  r12: Field.u64("r12"),
  r13: Field.u64("r13"),
  r14: Field.u64("r14"),
  r15: Field.u64("r15")
})

/**
 * `struct acrn_descriptor_ptr`: where a descriptor table is; packed, so `base` sits at byte 2.
 *
 * @category layouts
 * @since 0.1.0
 */
export const DescriptorPtr = Layout.struct("acrn_descriptor_ptr", {
  limit: Field.u16("limit"),
  base: Field.u64("base"),
  reserved: Field.reserved("reserved", Field.u16, 3)
}, { packed: true })

/**
 * `struct acrn_regs`: the state a vCPU starts from.
 *
 * @category layouts
 * @since 0.1.0
 */
export const Regs = Layout.struct("acrn_regs", {
  gprs: Layout.nested("gprs", GpRegs),
  gdt: Layout.nested("gdt", DescriptorPtr),
  idt: Layout.nested("idt", DescriptorPtr),
  rip: Field.u64("rip"),
  csBase: Field.u64("cs_base"),
  cr0: Field.u64("cr0"),
  cr4: Field.u64("cr4"),
  cr3: Field.u64("cr3"),
  ia32Efer: Field.u64("ia32_efer"),
  rflags: Field.u64("rflags"),
  reserved64: Field.reserved("reserved_64", Field.u64, 4),
  csAr: Field.u32("cs_ar"),
  csLimit: Field.u32("cs_limit"),
  reserved32: Field.reserved("reserved_32", Field.u32, 3),
  csSel: Field.u16("cs_sel"),
  ssSel: Field.u16("ss_sel"),
  dsSel: Field.u16("ds_sel"),
  esSel: Field.u16("es_sel"),
  fsSel: Field.u16("fs_sel"),
  gsSel: Field.u16("gs_sel"),
  ldtSel: Field.u16("ldt_sel"),
  trSel: Field.u16("tr_sel")
})

/**
 * @category models
 * @since 0.1.0
 */
export type Regs = Layout.Value<typeof Regs>

/**
 * `struct acrn_vcpu_regs`: whose registers, and the registers.
 *
 * @category layouts
 * @since 0.1.0
 */
export const VcpuRegs = Layout.struct("acrn_vcpu_regs", {
  vcpuId: Field.u16("vcpu_id"),
  reserved: Field.reserved("reserved", Field.u16, 3),
  vcpuRegs: Layout.nested("vcpu_regs", Regs)
})

/**
 * @category models
 * @since 0.1.0
 */
export type VcpuRegs = Layout.Value<typeof VcpuRegs>
