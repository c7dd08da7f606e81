/**
 * A vCPU's registers, as ACRN's hypercall carries them and as KVM holds them.
 *
 * ACRN's structure has a base, limit and attributes for CS alone. The other segments begin at 0 and reach to 4 GiB, or
 * in real mode to 64 KiB (`set_vcpu_regs` in hypervisor/arch/x86/guest/vcpu.c).
 */
import type { Regs as AcrnRegs } from "../../domain/abi/VcpuRegs.ts"
import { Cr0, Efer } from "../../domain/VcpuRegisters.ts"
import type { Regs, Segment, Sregs } from "./abi/Registers.ts"

// Bits of a descriptor's second word, as a VMCS keeps them.
const TYPE = 0xf
const NO_SYSTEM = 1 << 4
const PRIVILEGE_SHIFT = 5
const PRESENT = 1 << 7
const AVAILABLE = 1 << 12
const LONG = 1 << 13
const BIG = 1 << 14
const GRANULAR = 1 << 15

const DATA = { type: 3, present: 1, dpl: 0, s: 1, l: 0, avl: 0, unusable: 0 }
const BUSY_TSS = { base: 0n, limit: 0xffff, type: 11, present: 1, dpl: 0, db: 0, s: 0, l: 0, g: 0, avl: 0, unusable: 0 }
const LDT = { ...BUSY_TSS, type: 2 }

const bit = (word: number, mask: number): number => (word & mask) === 0 ? 0 : 1

const codeSegment = ({ csAr, csBase, csLimit, csSel }: AcrnRegs): Segment => ({
  base: csBase,
  limit: csLimit,
  selector: csSel,
  type: csAr & TYPE,
  present: bit(csAr, PRESENT),
  dpl: csAr >> PRIVILEGE_SHIFT & 3,
  db: bit(csAr, BIG),
  s: bit(csAr, NO_SYSTEM),
  l: bit(csAr, LONG),
  g: bit(csAr, GRANULAR),
  avl: bit(csAr, AVAILABLE),
  unusable: 0
})

const accessRightsOf = (segment: Segment): number =>
  segment.type | segment.s * NO_SYSTEM | segment.dpl << PRIVILEGE_SHIFT | segment.present * PRESENT |
  segment.avl * AVAILABLE | segment.l * LONG | segment.db * BIG | segment.g * GRANULAR

/** The general registers that a vCPU starts with. An `rflags` of 0 stands for the reset value. */
export const generalOf = ({ gprs, rflags, rip }: AcrnRegs): Regs => ({
  ...gprs,
  rip,
  rflags: rflags === 0n ? 2n : rflags
})

/** The special registers that a vCPU starts with; what ACRN's structure does not carry stays as it was. */
export const specialOf = (registers: AcrnRegs, before: Sregs): Sregs => {
  const isProtected = (registers.cr0 & Cr0.ProtectionEnable) !== 0n
  const big = isProtected ? 1 : 0
  const data = (selector: number): Segment => ({
    ...DATA,
    base: 0n,
    limit: isProtected ? 0xffff_ffff : 0xffff,
    selector,
    db: big,
    g: big
  })
  return {
    ...before,
    cs: codeSegment(registers),
    ds: data(registers.dsSel),
    es: data(registers.esSel),
    fs: data(registers.fsSel),
    gs: data(registers.gsSel),
    ss: data(registers.ssSel),
    tr: { ...BUSY_TSS, selector: registers.trSel },
    ldt: { ...LDT, selector: registers.ldtSel },
    gdt: registers.gdt,
    idt: registers.idt,
    cr0: registers.cr0,
    cr2: 0n,
    cr3: registers.cr3,
    cr4: registers.cr4,
    cr8: 0n,
    efer: withLongModeActive(registers),
    interruptBitmap: [0n, 0n, 0n, 0n]
  }
}

/** The processor sets LMA by itself when paging begins with LME; KVM wants to be told. */
const withLongModeActive = ({ cr0, ia32Efer }: AcrnRegs): bigint =>
  (cr0 & Cr0.Paging) !== 0n && (ia32Efer & Efer.LongModeEnable) !== 0n ? ia32Efer | Efer.LongModeActive : ia32Efer

/** What ACRN's structure shows of a vCPU. */
export const acrnRegsOf = (general: Regs, special: Sregs): AcrnRegs => {
  const { rflags, rip, ...gprs } = general
  return {
    gprs,
    gdt: special.gdt,
    idt: special.idt,
    rip,
    csBase: special.cs.base,
    cr0: special.cr0,
    cr4: special.cr4,
    cr3: special.cr3,
    ia32Efer: special.efer,
    rflags,
    csAr: accessRightsOf(special.cs),
    csLimit: special.cs.limit,
    csSel: special.cs.selector,
    ssSel: special.ss.selector,
    dsSel: special.ds.selector,
    esSel: special.es.selector,
    fsSel: special.fs.selector,
    gsSel: special.gs.selector,
    ldtSel: special.ldt.selector,
    trSel: special.tr.selector
  }
}
