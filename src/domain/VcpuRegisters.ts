/**
 * The registers a vCPU starts from, as a value: a schema, constructors for the modes guests are started in, and the
 * checks that ACRN and the processor make on them.
 *
 * The constructors are total: they never throw and check nothing. `check` is what stands between a value and a
 * hypervisor.
 *
 * **Example** (A 32-bit guest that starts at 1 MiB)
 *
 * ```ts
 * import * as VcpuRegisters from "upcall/domain/VcpuRegisters"
 *
 * const registers = VcpuRegisters.flat32({ entry: 0x10_0000, stack: 0x8_0000, gprs: { rax: 0x2badb002n } })
 * const checked = VcpuRegisters.check(registers) // a Result
 * ```
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { U16, U32, U64 } from "./abi/Unsigned.ts"
import { Regs } from "./abi/VcpuRegs.ts"
import { hex } from "./Address.ts"

/**
 * The sixteen general registers, 64 bits each.
 *
 * @category schemas
 * @since 0.1.0
 */
export const GeneralRegisters = Schema.Struct({
  rax: U64,
  rcx: U64,
  rdx: U64,
  rbx: U64,
  rsp: U64,
  rbp: U64,
  rsi: U64,
  rdi: U64,
  r8: U64,
  r9: U64,
  r10: U64,
  r11: U64,
  r12: U64,
  r13: U64,
  r14: U64,
  r15: U64
})

/**
 * @category models
 * @since 0.1.0
 */
export type GeneralRegisters = typeof GeneralRegisters.Type

/**
 * Where a descriptor table is: the linear address of its first byte and the offset of its last.
 *
 * @category schemas
 * @since 0.1.0
 */
export const DescriptorTable = Schema.Struct({ limit: U16, base: U64 })

/**
 * @category models
 * @since 0.1.0
 */
export type DescriptorTable = typeof DescriptorTable.Type

/**
 * Everything `struct acrn_regs` carries. Only CS has a base, a limit (in bytes, inclusive) and attributes of its own:
 * ACRN gives every other segment base 0 and, by CR0.PE, a limit of 4 GiB or 64 KiB, whatever its selector says. An
 * `rflags` of 0 stands for the reset value, 2. Source: `set_vcpu_regs` in ACRN's hypervisor/arch/x86/guest/vcpu.c.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VcpuRegisters = Schema.Struct({
  gprs: GeneralRegisters,
  gdt: DescriptorTable,
  idt: DescriptorTable,
  rip: U64,
  csBase: U64,
  cr0: U64,
  cr4: U64,
  cr3: U64,
  ia32Efer: U64,
  rflags: U64,
  csAr: U32,
  csLimit: U32,
  csSel: U16,
  ssSel: U16,
  dsSel: U16,
  esSel: U16,
  fsSel: U16,
  gsSel: U16,
  ldtSel: U16,
  trSel: U16
})

/**
 * @category models
 * @since 0.1.0
 */
export type VcpuRegisters = typeof VcpuRegisters.Type

/**
 * The bits of CR0 that this module speaks of. Source: Intel SDM volume 3, section 2.5.
 *
 * @category constants
 * @since 0.1.0
 */
export const Cr0 = {
  ProtectionEnable: 1n << 0n,
  MonitorCoprocessor: 1n << 1n,
  Emulation: 1n << 2n,
  TaskSwitched: 1n << 3n,
  ExtensionType: 1n << 4n,
  NumericError: 1n << 5n,
  WriteProtect: 1n << 16n,
  AlignmentMask: 1n << 18n,
  NotWriteThrough: 1n << 29n,
  CacheDisable: 1n << 30n,
  Paging: 1n << 31n
} as const

/**
 * The bits of CR4 that ACRN lets a guest set on some processor. Not among them, and so refused: VMXE, SMXE and CET. A
 * processor without the feature refuses its bit too, which only the hypervisor can tell. Source:
 * hypervisor/arch/x86/guest/virtual_cr.c of ACRN.
 *
 * @category constants
 * @since 0.1.0
 */
export const Cr4 = {
  VirtualMode: 1n << 0n,
  ProtectedVirtualInterrupts: 1n << 1n,
  TimeStampDisable: 1n << 2n,
  DebuggingExtensions: 1n << 3n,
  PageSizeExtensions: 1n << 4n,
  PhysicalAddressExtension: 1n << 5n,
  MachineCheck: 1n << 6n,
  PageGlobal: 1n << 7n,
  PerformanceCounter: 1n << 8n,
  FxSaveRestore: 1n << 9n,
  UnmaskedSimdExceptions: 1n << 10n,
  UserModeInstructionPrevention: 1n << 11n,
  LinearAddress57: 1n << 12n,
  FsGsBase: 1n << 16n,
  ProcessContextIds: 1n << 17n,
  OsXsave: 1n << 18n,
  KeyLocker: 1n << 19n,
  SupervisorExecutionPrevention: 1n << 20n,
  SupervisorAccessPrevention: 1n << 21n,
  ProtectionKeys: 1n << 22n,
  SupervisorProtectionKeys: 1n << 24n
} as const

/**
 * The bits of IA32_EFER that `check` reads.
 *
 * @category constants
 * @since 0.1.0
 */
export const Efer = { LongModeEnable: 1n << 8n, LongModeActive: 1n << 10n } as const

const allOf = (bits: Readonly<Record<string, bigint>>): bigint =>
  Object.values(bits).reduce((all, bit) => all | bit, 0n)
const cr0Bits = allOf(Cr0)
const cr4Bits = allOf(Cr4)

// Access rights of CS as a VMCS holds them; ACRN's vcpu.h and vm_config use the same two values.
const REAL_MODE_CODE = 0x9f
const FLAT_32_CODE = 0xc09b
const LONG_64_CODE = 0xa09b
const CS_LONG = 0x2000

/**
 * Every register 0. A base to build on, not a state to start from: ACRN refuses it, since CR0.NE is clear.
 *
 * @category constructors
 * @since 0.1.0
 */
export const zero: VcpuRegisters = {
  gprs: {
    rax: 0n,
    rcx: 0n,
    rdx: 0n,
    rbx: 0n,
    rsp: 0n,
    rbp: 0n,
    rsi: 0n,
    rdi: 0n,
    r8: 0n,
    r9: 0n,
    r10: 0n,
    r11: 0n,
    r12: 0n,
    r13: 0n,
    r14: 0n,
    r15: 0n
  },
  gdt: { limit: 0, base: 0n },
  idt: { limit: 0, base: 0n },
  rip: 0n,
  csBase: 0n,
  cr0: 0n,
  cr4: 0n,
  cr3: 0n,
  ia32Efer: 0n,
  rflags: 0n,
  csAr: 0,
  csLimit: 0,
  csSel: 0,
  ssSel: 0,
  dsSel: 0,
  esSel: 0,
  fsSel: 0,
  gsSel: 0,
  ldtSel: 0,
  trSel: 0
}

// BigInt throws on a fraction. -1 fits no register, so `check` refuses it like any other value out of range.
const word = (value: number): bigint => Number.isSafeInteger(value) ? BigInt(value) : -1n

/**
 * What `realMode` needs: `ip`, the offset of the first instruction in CS; `csBase`, the linear address where CS begins
 * (default 0); `sp` (default 0); and other general registers.
 *
 * @category models
 * @since 0.1.0
 */
export interface RealModeOptions {
  readonly ip: number
  readonly csBase?: number | undefined
  readonly sp?: number | undefined
  readonly gprs?: Partial<GeneralRegisters> | undefined
}

/**
 * 16-bit real mode, as after reset: paging and protection off, 64-KiB segments, the interrupt table at 0. The selector
 * of CS follows from `csBase`; the other segments begin at 0.
 *
 * **Example** (Where an x86 processor starts)
 *
 * ```ts
 * VcpuRegisters.realMode({ ip: 0xfff0, csBase: 0xffff_0000 }) // CS selector 0xf000
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const realMode = (options: RealModeOptions): VcpuRegisters => {
  const csBase = word(options.csBase ?? 0)
  return {
    ...zero,
    gprs: { ...zero.gprs, rsp: word(options.sp ?? 0), ...options.gprs },
    gdt: { limit: 0xffff, base: 0n },
    idt: { limit: 0xffff, base: 0n },
    rip: word(options.ip),
    csBase,
    cr0: Cr0.ExtensionType | Cr0.NumericError,
    rflags: 2n,
    csAr: REAL_MODE_CODE,
    csLimit: 0xffff,
    csSel: Number(BigInt.asUintN(16, csBase >> 4n))
  }
}

/**
 * What `flat32` needs: `entry`, the guest physical address of the first instruction; `stack`, the first value of ESP
 * (default 0); other general registers; the selectors (default 0x10 for CS, 0x18 for the rest, which is what ACRN
 * itself and Linux's 32-bit boot protocol use); and where the descriptor table is, for guests that reload a segment
 * before they load a table of their own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Flat32Options {
  readonly entry: number
  readonly stack?: number | undefined
  readonly gprs?: Partial<GeneralRegisters> | undefined
  readonly selectors?: { readonly code: number; readonly data: number } | undefined
  readonly gdt?: DescriptorTable | undefined
}

/**
 * 32-bit protected mode without paging, every segment from 0 to 4 GiB: what Multiboot and Linux's 32-bit boot protocol
 * want. Interrupts are off.
 *
 * @category constructors
 * @since 0.1.0
 */
export const flat32 = (options: Flat32Options): VcpuRegisters => {
  const { code, data } = options.selectors ?? { code: 0x10, data: 0x18 }
  return {
    ...zero,
    gprs: { ...zero.gprs, rsp: word(options.stack ?? 0), ...options.gprs },
    gdt: options.gdt ?? zero.gdt,
    rip: word(options.entry),
    cr0: Cr0.ProtectionEnable | Cr0.ExtensionType | Cr0.NumericError,
    rflags: 2n,
    csAr: FLAT_32_CODE,
    csLimit: 0xffff_ffff,
    csSel: code,
    ssSel: data,
    dsSel: data,
    esSel: data,
    fsSel: data,
    gsSel: data
  }
}

/**
 * What `long64` needs: `entry`, the address of the first instruction; `pageTables`, the guest physical address of the
 * top-level page table (4 levels), a multiple of 4096, whose tables map the entry and the stack; `stack`, the first
 * value of RSP (default 0); other general registers; the selectors (default 0x10 for CS, 0x18 for the rest, as Linux's
 * 64-bit boot protocol has them); and where the descriptor table is, for guests that take interrupts or reload a segment
 * before they load a table of their own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Long64Options extends Flat32Options {
  readonly pageTables: number
}

/**
 * 64-bit mode with paging on. SSE is switched on, as compilers use it in all 64-bit code. Interrupts are off.
 *
 * **Example** (A second vCPU beside the one that a plan starts)
 *
 * ```ts
 * VcpuRegisters.long64({ entry: 0x10_0000, stack: 0x8_0000, pageTables: Number(plan.registers.cr3) })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const long64 = (options: Long64Options): VcpuRegisters => ({
  ...flat32(options),
  cr0: Cr0.ProtectionEnable | Cr0.MonitorCoprocessor | Cr0.ExtensionType | Cr0.NumericError | Cr0.Paging,
  cr3: word(options.pageTables),
  cr4: Cr4.PhysicalAddressExtension | Cr4.FxSaveRestore | Cr4.UnmaskedSimdExceptions,
  ia32Efer: Efer.LongModeEnable | Efer.LongModeActive,
  csAr: LONG_64_CODE
})

/**
 * The processor mode in which a vCPU with these registers starts.
 *
 * @category values
 * @since 0.1.0
 */
export const modeOf = (registers: VcpuRegisters): "Real" | "Protected32" | "Long64" => {
  if ((registers.cr0 & Cr0.ProtectionEnable) === 0n) return "Real"
  return (registers.ia32Efer & Efer.LongModeActive) === 0n ? "Protected32" : "Long64"
}

/**
 * Why registers were refused. `bits` are the bits that must be clear and are not.
 *
 * @category errors
 * @since 0.1.0
 */
export const VcpuRegistersErrorReason = Schema.TaggedUnion({
  FieldOutOfRange: { field: Schema.String, value: Schema.Unknown },
  Cr0ReservedBits: { cr0: Schema.BigInt, bits: Schema.BigInt },
  Cr0NumericErrorClear: { cr0: Schema.BigInt },
  Cr4ReservedBits: { cr4: Schema.BigInt, bits: Schema.BigInt },
  PagingWithoutProtection: { cr0: Schema.BigInt },
  NotWriteThroughWithoutCacheDisable: { cr0: Schema.BigInt },
  LongModeWithoutPae: { cr4: Schema.BigInt, ia32Efer: Schema.BigInt },
  ProcessContextIdsOutsideLongMode: { cr4: Schema.BigInt },
  InstructionPointerTooWide: { rip: Schema.BigInt }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type VcpuRegistersErrorReason = typeof VcpuRegistersErrorReason.Type

/**
 * Registers that a vCPU cannot start from. Nothing was handed to the hypervisor.
 *
 * @category errors
 * @since 0.1.0
 */
export class VcpuRegistersError extends Schema.TaggedError<VcpuRegistersError>()("VcpuRegistersError", {
  reason: VcpuRegistersErrorReason
}) {
  override get message(): string {
    return VcpuRegistersErrorReason.match(this.reason, {
      FieldOutOfRange: (r) =>
        `register ${r.field} cannot hold ${
          typeof r.value === "bigint" || typeof r.value === "number" ? r.value : `a value of type ${typeof r.value}`
        }; pass an unsigned integer of the register's width (addresses: a non-negative safe integer)`,
      Cr0ReservedBits: (r) => `CR0 ${hex(r.cr0)} sets reserved bits ${hex(r.bits)}; clear them`,
      Cr0NumericErrorClear: (r) => `CR0 ${hex(r.cr0)} has NE clear, which a guest cannot; set bit 5 (0x20)`,
      Cr4ReservedBits: (r) => `CR4 ${hex(r.cr4)} sets bits ${hex(r.bits)}, which a guest may not; clear them`,
      PagingWithoutProtection: (r) => `CR0 ${hex(r.cr0)} sets PG without PE; set PE (0x1) or clear PG`,
      NotWriteThroughWithoutCacheDisable: (r) =>
        `CR0 ${hex(r.cr0)} sets NW without CD; set CD (0x40000000) or clear NW`,
      LongModeWithoutPae: (r) =>
        `paging with EFER.LME (${hex(r.ia32Efer)}) needs CR4.PAE, and CR4 is ${hex(r.cr4)}; set PAE (0x20)`,
      ProcessContextIdsOutsideLongMode: (r) =>
        `CR4 ${hex(r.cr4)} sets PCIDE outside long mode; clear it (0x20000) or start in long mode`,
      InstructionPointerTooWide: (r) =>
        `RIP ${hex(r.rip)} is beyond 32 bits outside 64-bit mode; start below 4 GiB or in 64-bit mode`
    })
  }
}

const has = (value: bigint, bit: bigint): boolean => (value & bit) !== 0n

/**
 * What ACRN itself checks when SET_VCPU_REGS comes, so what makes the hypercall return -1: reserved bits, and CR0.NE,
 * which Intel processors fix to 1 for guests. `undefined` when it accepts. It knows nothing of combinations of legal
 * bits; `check` does. Source: `is_valid_cr0_cr4` in ACRN's hypervisor/arch/x86/guest/virtual_cr.c.
 *
 * @category guards
 * @since 0.1.0
 */
export const hypercallRefusal = (
  registers: { readonly cr0: bigint; readonly cr4: bigint }
): VcpuRegistersErrorReason | undefined => {
  const { cr0, cr4 } = registers
  if (has(cr0, ~cr0Bits)) {
    return { _tag: "Cr0ReservedBits", cr0, bits: cr0 & ~cr0Bits }
  }
  if (!has(cr0, Cr0.NumericError)) {
    return { _tag: "Cr0NumericErrorClear", cr0 }
  }
  if (has(cr4, ~cr4Bits)) {
    return { _tag: "Cr4ReservedBits", cr4, bits: cr4 & ~cr4Bits }
  }
  return undefined
}

// What passes the hypercall and only fails when the vCPU starts: a fault in the guest, or a failed VM entry.
const startRefusal = (registers: VcpuRegisters): VcpuRegistersErrorReason | undefined => {
  const { cr0, cr4, csAr, ia32Efer, rip } = registers
  const paging = has(cr0, Cr0.Paging)
  const longMode = paging && has(ia32Efer, Efer.LongModeEnable)
  if (paging && !has(cr0, Cr0.ProtectionEnable)) {
    return { _tag: "PagingWithoutProtection", cr0 }
  }
  if (has(cr0, Cr0.NotWriteThrough) && !has(cr0, Cr0.CacheDisable)) {
    return { _tag: "NotWriteThroughWithoutCacheDisable", cr0 }
  }
  if (longMode && !has(cr4, Cr4.PhysicalAddressExtension)) {
    return { _tag: "LongModeWithoutPae", cr4, ia32Efer }
  }
  if (has(cr4, Cr4.ProcessContextIds) && !longMode) {
    return { _tag: "ProcessContextIdsOutsideLongMode", cr4 }
  }
  if (rip > 0xffff_ffffn && !(longMode && (csAr & CS_LONG) !== 0)) {
    return { _tag: "InstructionPointerTooWide", rip }
  }
  return undefined
}

/**
 * The registers again if a vCPU can start from them: every field fits its width, ACRN takes the control registers
 * (`hypercallRefusal`), and the processor takes their combination (Intel SDM volume 3, sections 2.5, 4.10.1, 26.3 and
 * 27.3.1). Fails with a `VcpuRegistersError` that names the first rule broken.
 *
 * @category guards
 * @since 0.1.0
 */
export const check = (registers: VcpuRegisters): Result.Result<VcpuRegisters, VcpuRegistersError> => {
  const reason = widthRefusal(registers) ?? hypercallRefusal(registers) ?? startRefusal(registers)
  return reason === undefined ? Result.succeed(registers) : Result.fail(new VcpuRegistersError({ reason }))
}

// The ABI layout already knows every width: registers fit exactly when they encode.
const widthRefusal = (registers: VcpuRegisters): VcpuRegistersErrorReason | undefined => {
  const encoded = Regs.encode(registers)
  return Result.isFailure(encoded) && encoded.failure.reason._tag === "FieldOutOfRange"
    ? { _tag: "FieldOutOfRange", field: encoded.failure.reason.field, value: encoded.failure.reason.value }
    : undefined
}
