/**
 * Registers in and out of the core's memory.
 *
 * @since 0.1.0
 */
import { Cr0, Cr4, type VcpuRegisters, zero } from "../../domain/VcpuRegisters.ts"
import type { CoreMemory } from "./CoreMemory.ts"
import { CpuError } from "./CpuError.ts"
import { CpuOffsets, SegmentIndex } from "./CpuOffsets.ts"

const generalRegisters = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const
const longModeRegisters = ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const
const segments = [
  ["es", "esSel"],
  ["cs", "csSel"],
  ["ss", "ssSel"],
  ["ds", "dsSel"],
  ["fs", "fsSel"],
  ["gs", "gsSel"],
  ["tr", "trSel"],
  ["ldtr", "ldtSel"]
] as const

// What ACRN gives every segment but CS (`set_vcpu_regs` in hypervisor/arch/x86/guest/vcpu.c).
const DATA_ACCESS = 0x93
const TR_ACCESS = 0x8b
const LDTR_ACCESS = 0x82
const REAL_LIMIT = 0xffff
const FLAT_LIMIT = 0xffff_ffff

// The attributes of CS, as a VMCS holds them: the access byte, then flags.
const ACCESS_BYTE = 0xff
const DEFAULT_32 = 1 << 14
const GRANULARITY = 1 << 15
const LONG = 1 << 13
const UNUSABLE = 1 << 16

const FLAG_RESERVED = 0x2
const FLAG_TRAP = 1 << 8
const FLAG_VM86 = 1 << 17
/** Every flag the core keeps (`FLAGS_MASK` in `src/rust/cpu/cpu.rs`). */
const FLAGS = 0x3f_7fd5

/** Bits of CR4 for which the core raises #GP (`instr_0F22` in `src/rust/cpu/instructions_0f.rs`). */
const CR4_UNKNOWN = 0xffc9_9800n

const PAGE_DIRECTORY_POINTERS = 4

const refuse = (register: string, problem: string): never => {
  throw new CpuError({ reason: { _tag: "BadRegister", register, problem } })
}

const check32 = (register: string, value: bigint): void => {
  if (value < 0n || value > 0xffff_ffffn) {
    refuse(register, `is 0x${value.toString(16)}, more than 32 bits`)
  }
}

/** Refuses what a 32-bit CPU without virtual-8086 mode and without single-step cannot start from. */
const check = (registers: VcpuRegisters): void => {
  for (const register of generalRegisters) {
    check32(register, registers.gprs[register])
  }
  for (const register of longModeRegisters) {
    if (registers.gprs[register] !== 0n) {
      refuse(register, "is not 0, and exists in long mode only")
    }
  }
  for (const register of ["rip", "csBase", "cr0", "cr3", "cr4", "rflags"] as const) {
    check32(register, registers[register])
  }
  check32("gdt.base", registers.gdt.base)
  check32("idt.base", registers.idt.base)
  check32("csBase + rip", registers.csBase + registers.rip)
  if (registers.ia32Efer !== 0n) {
    refuse("ia32Efer", "is not 0, but a 32-bit CPU has no long mode and no EFER")
  }
  if ((registers.csAr & LONG) !== 0) {
    refuse("csAr", "asks for 64-bit code")
  }
  if ((registers.csAr & UNUSABLE) !== 0) {
    refuse("csAr", "makes the code segment unusable")
  }
  if ((registers.cr4 & CR4_UNKNOWN) !== 0n) {
    refuse("cr4", `has bits 0x${(registers.cr4 & CR4_UNKNOWN).toString(16)}, which this CPU does not have`)
  }
  if ((registers.cr0 & Cr0.Paging) !== 0n && (registers.cr0 & Cr0.ProtectionEnable) === 0n) {
    refuse("cr0", "sets PG without PE")
  }
  if ((Number(registers.rflags) & (FLAG_TRAP | FLAG_VM86)) !== 0) {
    refuse("rflags", "sets TF or VM, but this CPU has no single-step and cannot start in virtual-8086 mode")
  }
}

/**
 * Sets every register the way ACRN does: CS as given, every other segment with base 0 and a limit that follows from
 * CR0.PE, whatever its selector says. Privilege level 0; not halted. Throws a `CpuError` of reason `BadRegister`, with
 * nothing changed, for what the core cannot start from: 64-bit state, TF, VM, unknown bits of CR4.
 *
 * `load64` reads guest RAM, for the page directory pointers of PAE. The caller has the core forget its translations and
 * derived state afterwards.
 *
 * @category setters
 * @since 0.1.0
 */
export const writeRegisters = (
  memory: CoreMemory,
  registers: VcpuRegisters,
  load64: (address: number) => bigint
): void => {
  check(registers)
  const { bytes, view } = memory
  const word = (offset: number, value: bigint | number): void => view.setUint32(offset, Number(value), true)
  const isProtected = (registers.cr0 & Cr0.ProtectionEnable) !== 0n
  const is32 = (registers.csAr & DEFAULT_32) !== 0

  // Before anything is changed, since it can fail.
  const pointers = (registers.cr0 & Cr0.Paging) !== 0n && (registers.cr4 & Cr4.PhysicalAddressExtension) !== 0n
    ? Array.from(
      { length: PAGE_DIRECTORY_POINTERS },
      (_, index) => load64(((Number(registers.cr3) & ~0x1f) >>> 0) + 8 * index)
    )
    : []
  pointers.forEach((pointer, index) =>
    view.setBigUint64(CpuOffsets.pageDirectoryPointers + 8 * index, pointer & ~0xe00n, true)
  )

  generalRegisters.forEach((register, index) => word(CpuOffsets.generalRegisters + 4 * index, registers.gprs[register]))
  word(CpuOffsets.instructionPointer, registers.csBase + registers.rip)
  word(CpuOffsets.previousInstructionPointer, registers.csBase + registers.rip)
  word(CpuOffsets.flags, Number(registers.rflags) & FLAGS | FLAG_RESERVED)
  word(CpuOffsets.flagsChanged, 0)
  word(CpuOffsets.controlRegisters, registers.cr0 | Cr0.ExtensionType)
  word(CpuOffsets.controlRegisters + 4 * 2, 0)
  word(CpuOffsets.controlRegisters + 4 * 3, registers.cr3)
  word(CpuOffsets.controlRegisters + 4 * 4, registers.cr4)
  word(CpuOffsets.gdtLimit, registers.gdt.limit)
  word(CpuOffsets.gdtBase, registers.gdt.base)
  word(CpuOffsets.idtLimit, registers.idt.limit)
  word(CpuOffsets.idtBase, registers.idt.base)

  for (const [segment, selector] of segments) {
    const index = SegmentIndex[segment]
    view.setUint16(CpuOffsets.segmentSelectors + 2 * index, registers[selector], true)
    word(CpuOffsets.segmentBases + 4 * index, 0)
    word(CpuOffsets.segmentLimits + 4 * index, isProtected ? FLAT_LIMIT : REAL_LIMIT)
    bytes[CpuOffsets.segmentAccess + index] = DATA_ACCESS
    bytes[CpuOffsets.segmentIsNull + index] = 0
  }
  word(CpuOffsets.segmentBases + 4 * SegmentIndex.cs, registers.csBase)
  word(CpuOffsets.segmentLimits + 4 * SegmentIndex.cs, registers.csLimit)
  bytes[CpuOffsets.segmentAccess + SegmentIndex.cs] = registers.csAr & ACCESS_BYTE
  for (const [index, access] of [[SegmentIndex.tr, TR_ACCESS], [SegmentIndex.ldtr, LDTR_ACCESS]] as const) {
    word(CpuOffsets.segmentLimits + 4 * index, REAL_LIMIT)
    bytes[CpuOffsets.segmentAccess + index] = access
  }

  bytes[CpuOffsets.protectedMode] = Number(isProtected)
  bytes[CpuOffsets.codeIs32] = Number(is32)
  bytes[CpuOffsets.stackIs32] = Number(isProtected)
  bytes[CpuOffsets.taskIs32] = 1
  bytes[CpuOffsets.privilegeLevel] = 0
  bytes[CpuOffsets.halted] = 0
}

/**
 * Every register, with `eflags` from the core, which computes it on demand. The upper halves, the registers that only
 * long mode has, and EFER are 0.
 *
 * @category getters
 * @since 0.1.0
 */
export const readRegisters = (memory: CoreMemory, eflags: number): VcpuRegisters => {
  const { bytes, view } = memory
  const word = (offset: number): bigint => BigInt(view.getUint32(offset, true))
  const selector = (segment: keyof typeof SegmentIndex): number =>
    view.getUint16(CpuOffsets.segmentSelectors + 2 * SegmentIndex[segment], true)
  const general = (index: number): bigint => word(CpuOffsets.generalRegisters + 4 * index)
  const csBase = word(CpuOffsets.segmentBases + 4 * SegmentIndex.cs)
  const csLimit = view.getUint32(CpuOffsets.segmentLimits + 4 * SegmentIndex.cs, true)
  return {
    gprs: {
      ...zero.gprs,
      rax: general(0),
      rcx: general(1),
      rdx: general(2),
      rbx: general(3),
      rsp: general(4),
      rbp: general(5),
      rsi: general(6),
      rdi: general(7)
    },
    gdt: { limit: view.getUint16(CpuOffsets.gdtLimit, true), base: word(CpuOffsets.gdtBase) },
    idt: { limit: view.getUint16(CpuOffsets.idtLimit, true), base: word(CpuOffsets.idtBase) },
    rip: BigInt.asUintN(32, word(CpuOffsets.instructionPointer) - csBase),
    csBase,
    cr0: word(CpuOffsets.controlRegisters),
    cr4: word(CpuOffsets.controlRegisters + 4 * 4),
    cr3: word(CpuOffsets.controlRegisters + 4 * 3),
    ia32Efer: 0n,
    rflags: BigInt(eflags >>> 0),
    csAr: (bytes[CpuOffsets.segmentAccess + SegmentIndex.cs] ?? 0) |
      (bytes[CpuOffsets.codeIs32] === 1 ? DEFAULT_32 : 0) |
      (csLimit > 0xf_ffff ? GRANULARITY : 0),
    csLimit,
    csSel: selector("cs"),
    ssSel: selector("ss"),
    dsSel: selector("ds"),
    esSel: selector("es"),
    fsSel: selector("fs"),
    gsSel: selector("gs"),
    ldtSel: selector("ldtr"),
    trSel: selector("tr")
  }
}
