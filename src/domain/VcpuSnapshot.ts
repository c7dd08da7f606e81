/**
 * All that a vCPU is between two instructions, as a value: what a snapshot of a VM has to hold of each of its vCPUs
 * beside memory and devices.
 *
 * The words are the processor's own, not those of the hypervisor that it was read from. `VcpuSnapshotJson` turns it into
 * JSON and back: 64-bit registers become decimal strings, areas of bytes become Base64.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { U16, U32, U64 } from "./abi/Unsigned.ts"
import { DescriptorTable, GeneralRegisters } from "./VcpuRegisters.ts"

const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

const bytesOf = (isRight: (length: number) => boolean, expected: string) =>
  Schema.Uint8Array.check(Schema.makeFilter((bytes: Uint8Array) => isRight(bytes.length) || `must be ${expected} long`))

/**
 * A segment register with its hidden part. `limit` is in bytes, inclusive; `type` and `privilege` are the descriptor's
 * type and DPL. Source: Intel SDM volume 3, section 3.4.5.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SegmentRegister = Schema.Struct({
  selector: U16,
  base: U64,
  limit: U32,
  type: upTo(15),
  privilege: upTo(3),
  isCodeOrData: Schema.Boolean,
  isPresent: Schema.Boolean,
  isAvailable: Schema.Boolean,
  isLong: Schema.Boolean,
  isBig: Schema.Boolean,
  isGranular: Schema.Boolean,
  isUnusable: Schema.Boolean
})

/**
 * @category models
 * @since 0.1.0
 */
export type SegmentRegister = typeof SegmentRegister.Type

/**
 * Segments, tables and control registers. `apicBase` is IA32_APIC_BASE, which also tells whether the local APIC is on,
 * and whether this is the processor that starts the others.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SpecialRegisters = Schema.Struct({
  cs: SegmentRegister,
  ds: SegmentRegister,
  es: SegmentRegister,
  fs: SegmentRegister,
  gs: SegmentRegister,
  ss: SegmentRegister,
  tr: SegmentRegister,
  ldt: SegmentRegister,
  gdt: DescriptorTable,
  idt: DescriptorTable,
  cr0: U64,
  cr2: U64,
  cr3: U64,
  cr4: U64,
  cr8: U64,
  efer: U64,
  apicBase: U64
})

/**
 * @category models
 * @since 0.1.0
 */
export type SpecialRegisters = typeof SpecialRegisters.Type

/**
 * A register that is known by its number: a model-specific or an extended control register.
 *
 * @category schemas
 * @since 0.1.0
 */
export const NumberedRegister = Schema.Struct({ index: U32, value: U64 })

/**
 * @category models
 * @since 0.1.0
 */
export type NumberedRegister = typeof NumberedRegister.Type

/**
 * The breakpoints of a debugger inside the guest: DR0 to DR3, and what governs them.
 *
 * @category schemas
 * @since 0.1.0
 */
export const DebugRegisters = Schema.Struct({
  addresses: Schema.Tuple([U64, U64, U64, U64]),
  dr6: U64,
  dr7: U64
})

/**
 * What the vCPU takes before its next instruction, and what keeps it from taking it.
 *
 * - `exception`: of `vector`; `isInjected` when its delivery has begun, so that registers already tell of it; else
 *   `payload` is what will go to CR2 or DR6.
 * - `interrupt`: one whose delivery has begun. It is not in the local APIC's list of requests any more.
 * - `shadow`: the instruction before holds interrupts off for one more.
 * - `nmi.pending`: the processor keeps up to two.
 * - `smm`: system management mode; `isInitLatched` is an INIT that waits for its end.
 * - `isTripleFaultPending`: the vCPU shuts down next.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PendingEvents = Schema.Struct({
  exception: Schema.optionalKey(Schema.Struct({
    vector: upTo(31),
    isInjected: Schema.Boolean,
    errorCode: Schema.optionalKey(U32),
    payload: Schema.optionalKey(U64)
  })),
  interrupt: Schema.optionalKey(Schema.Struct({ vector: upTo(255), isSoftware: Schema.Boolean })),
  shadow: Schema.Struct({ isAfterMovSs: Schema.Boolean, isAfterSti: Schema.Boolean }),
  nmi: Schema.Struct({ pending: upTo(2), isInjected: Schema.Boolean, isMasked: Schema.Boolean }),
  smm: Schema.Struct({
    isInside: Schema.Boolean,
    isPending: Schema.Boolean,
    isInsideNmi: Schema.Boolean,
    isInitLatched: Schema.Boolean
  }),
  isTripleFaultPending: Schema.Boolean
})

/**
 * @category models
 * @since 0.1.0
 */
export type PendingEvents = typeof PendingEvents.Type

/**
 * Whether a vCPU executes: one that waits for its first INIT, for a SIPI after it, for an interrupt after HLT, or that
 * was held by its own reset.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VcpuActivity = Schema.Literals([
  "Running",
  "Halted",
  "Uninitialized",
  "InitReceived",
  "SipiReceived",
  "ResetHold"
])

/**
 * @category models
 * @since 0.1.0
 */
export type VcpuActivity = typeof VcpuActivity.Type

/**
 * Bytes of a local APIC's register page that hold something.
 *
 * @category constants
 * @since 0.1.0
 */
export const LOCAL_APIC_BYTES = 1024

/**
 * The legacy region and the header of an XSAVE area, which every processor's begins with. Source: Intel SDM volume 1,
 * section 13.4.
 *
 * @category constants
 * @since 0.1.0
 */
export const LEAST_XSAVE_BYTES = 576

/**
 * The whole state of one vCPU.
 *
 * - `xsave`: x87, SSE, AVX and what else the processor saves with XSAVE, in its standard format. `xcrs`: XCR0, and others
 *   if there are.
 * - `msrs`: every model-specific register that the hypervisor lets be read, but EFER, IA32_APIC_BASE and the bases of FS
 *   and GS, which are in `special`, and the time stamp counter.
 * - `tsc`: the time stamp counter when it was read; it runs on.
 * - `localApic`: the register page, on hypervisors that have the chip.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VcpuSnapshot = Schema.Struct({
  activity: VcpuActivity,
  general: Schema.Struct({ ...GeneralRegisters.fields, rip: U64, rflags: U64 }),
  special: SpecialRegisters,
  xsave: bytesOf((length) => length >= LEAST_XSAVE_BYTES, `at least ${LEAST_XSAVE_BYTES} bytes`),
  xcrs: Schema.Array(NumberedRegister),
  debug: DebugRegisters,
  msrs: Schema.Array(NumberedRegister),
  tsc: U64,
  localApic: Schema.optionalKey(bytesOf((length) => length === LOCAL_APIC_BYTES, `${LOCAL_APIC_BYTES} bytes`)),
  events: PendingEvents
})

/**
 * @category models
 * @since 0.1.0
 */
export type VcpuSnapshot = typeof VcpuSnapshot.Type

/**
 * The same, as JSON has it.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VcpuSnapshotJson = Schema.toCodecJson(VcpuSnapshot)
