/**
 * `struct kvm_run` of `<linux/kvm.h>`: the page that a vCPU shares with its VMM, mapped from the vCPU's file.
 *
 * The layouts code whole structures; the `*_OFFSET` constants, taken from the same tables and all from the start of the
 * page, are for code that loads and stores single words of a live one.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { u64s, u8 } from "./KvmField.ts"
import { Regs, Sregs } from "./Registers.ts"
import { VcpuEvents } from "./VcpuEvents.ts"

/** An UNKNOWN exit. */
export const HwExit = Layout.struct("kvm_run.hw", { hardwareExitReason: Field.u64("hardware_exit_reason") })

/** A FAIL_ENTRY exit. */
export const FailEntryExit = Layout.struct("kvm_run.fail_entry", {
  hardwareEntryFailureReason: Field.u64("hardware_entry_failure_reason"),
  cpu: Field.u32("cpu")
})

/** An IO exit: `count` accesses of `size` bytes each, whose data lies at `dataOffset` from the start of the page. */
export const IoExit = Layout.struct("kvm_run.io", {
  direction: u8("direction"),
  size: u8("size"),
  port: Field.u16("port"),
  count: Field.u32("count"),
  dataOffset: Field.u64("data_offset")
})

/** An MMIO exit: the first `len` bytes of `data`, which a read fills in before the next KVM_RUN. */
export const MmioExit = Layout.struct("kvm_run.mmio", {
  physAddr: Field.u64("phys_addr"),
  data: Field.bytes("data", 8),
  len: Field.u32("len"),
  isWrite: u8("is_write")
})

/** A HYPERCALL exit; `ret` is the VMM's to fill in. */
export const HypercallExit = Layout.struct("kvm_run.hypercall", {
  nr: Field.u64("nr"),
  args: u64s("args", 6),
  ret: Field.u64("ret"),
  longmode: Field.u32("longmode"),
  pad: Field.reserved("pad", Field.u32)
})

/** An INTERNAL_ERROR exit: an `InternalError`, and `ndata` words of `data`. */
export const InternalErrorExit = Layout.struct("kvm_run.internal", {
  suberror: Field.u32("suberror"),
  ndata: Field.u32("ndata"),
  data: u64s("data", 16)
})

/** An INTERNAL_ERROR exit whose `suberror` is EMULATION: the instruction, if `flags` says that its bytes are there. */
export const EmulationFailureExit = Layout.struct("kvm_run.emulation_failure", {
  suberror: Field.u32("suberror"),
  ndata: Field.u32("ndata"),
  flags: Field.u64("flags"),
  insnSize: u8("insn_size"),
  insnBytes: Field.bytes("insn_bytes", 15)
})

/** A SYSTEM_EVENT exit: a `SystemEvent`, and `ndata` words of `data`. */
export const SystemEventExit = Layout.struct("kvm_run.system_event", {
  type: Field.u32("type"),
  ndata: Field.u32("ndata"),
  data: u64s("data", 16)
})

/** An IOAPIC_EOI exit, of a split interrupt controller. */
export const EoiExit = Layout.struct("kvm_run.eoi", { vector: u8("vector") })

/** An X86_RDMSR or X86_WRMSR exit: `reason` is a `MsrExitReason`; an `error` of 1 makes the instruction fault. */
export const MsrExit = Layout.struct("kvm_run.msr", {
  error: u8("error"),
  pad: Field.reserved("pad", u8, 7),
  reason: Field.u32("reason"),
  index: Field.u32("index"),
  data: Field.u64("data")
})

/** What the union after the header may hold, by C's names; `exit_reason` tells which. */
export const exitDetails = {
  hw: HwExit,
  fail_entry: FailEntryExit,
  io: IoExit,
  mmio: MmioExit,
  hypercall: HypercallExit,
  internal: InternalErrorExit,
  emulation_failure: EmulationFailureExit,
  system_event: SystemEventExit,
  eoi: EoiExit,
  msr: MsrExit
} as const

/** `struct kvm_sync_regs`: registers that KVM_RUN takes and gives in the page, where the capability SYNC_REGS is. */
export const SyncRegs = Layout.struct("kvm_sync_regs", {
  regs: Layout.nested("regs", Regs),
  sregs: Layout.nested("sregs", Sregs),
  events: Layout.nested("events", VcpuEvents)
})

/** `KVM_SYNC_X86_*`: the bits of `kvm_valid_regs` and `kvm_dirty_regs`. */
export const SyncRegsFlag = { REGS: 0x1, SREGS: 0x2, EVENTS: 0x4 } as const

/** The page's structure. `exit` is a union without a name; C reaches all its bytes as `padding`. */
export const KvmRun = Layout.struct("kvm_run", {
  requestInterruptWindow: u8("request_interrupt_window"),
  immediateExit: u8("immediate_exit"),
  padding1: Field.reserved("padding1", u8, 6),
  exitReason: Field.u32("exit_reason"),
  readyForInterruptInjection: u8("ready_for_interrupt_injection"),
  ifFlag: u8("if_flag"),
  flags: Field.u16("flags"),
  cr8: Field.u64("cr8"),
  apicBase: Field.u64("apic_base"),
  exit: Field.bytes("padding", 256),
  kvmValidRegs: Field.u64("kvm_valid_regs"),
  kvmDirtyRegs: Field.u64("kvm_dirty_regs"),
  s: Field.union("s", 2048, { regs: SyncRegs })
})

/** `KVM_RUN_X86_*`: the bits of `flags`. */
export const RunFlag = { SMM: 0x1, BUS_LOCK: 0x2 } as const

/** The page of the mapping, counted from its start, in which KVM puts the data of IO exits: KVM_PIO_PAGE_OFFSET. */
export const PIO_PAGE = 1

/** u8: 1 asks for an IRQ_WINDOW_OPEN exit as soon as an interrupt could be injected. */
export const REQUEST_INTERRUPT_WINDOW_OFFSET = KvmRun.offsets.requestInterruptWindow

/** u8: 1 makes KVM_RUN finish what is pending and fail with EINTR before the guest runs. */
export const IMMEDIATE_EXIT_OFFSET = KvmRun.offsets.immediateExit

/** u32: an `ExitReason`. */
export const EXIT_REASON_OFFSET = KvmRun.offsets.exitReason

/** u8: 1 when KVM_INTERRUPT would be taken now. */
export const READY_FOR_INTERRUPT_INJECTION_OFFSET = KvmRun.offsets.readyForInterruptInjection

/** u8: the guest's RFLAGS.IF. */
export const IF_FLAG_OFFSET = KvmRun.offsets.ifFlag

/** u16: `RunFlag` bits. */
export const RUN_FLAGS_OFFSET = KvmRun.offsets.flags

/** u64. */
export const CR8_OFFSET = KvmRun.offsets.cr8

/** u64. */
export const APIC_BASE_OFFSET = KvmRun.offsets.apicBase

/** Where the union of the exits begins. */
export const EXIT_OFFSET = KvmRun.offsets.exit

const inExit = (offset: number): number => EXIT_OFFSET + offset

/** u8: an `IoDirection`. */
export const IO_DIRECTION_OFFSET = inExit(IoExit.offsets.direction)

/** u8: bytes of one access, 1, 2 or 4. */
export const IO_SIZE_OFFSET = inExit(IoExit.offsets.size)

/** u16. */
export const IO_PORT_OFFSET = inExit(IoExit.offsets.port)

/** u32: accesses, more than 1 for string instructions. */
export const IO_COUNT_OFFSET = inExit(IoExit.offsets.count)

/** u64: where the data is, from the start of the page. */
export const IO_DATA_OFFSET_OFFSET = inExit(IoExit.offsets.dataOffset)

/** u64: a guest physical address. */
export const MMIO_ADDRESS_OFFSET = inExit(MmioExit.offsets.physAddr)

/** 8 bytes. */
export const MMIO_DATA_OFFSET = inExit(MmioExit.offsets.data)

/** u32: bytes accessed, 1 to 8. */
export const MMIO_LENGTH_OFFSET = inExit(MmioExit.offsets.len)

/** u8: 1 for a write. */
export const MMIO_IS_WRITE_OFFSET = inExit(MmioExit.offsets.isWrite)

/** u32: the first word of an INTERNAL_ERROR exit, an `InternalError`. */
export const INTERNAL_SUBERROR_OFFSET = inExit(InternalErrorExit.offsets.suberror)

/** u32: the first word of a SYSTEM_EVENT exit, a `SystemEvent`. */
export const SYSTEM_EVENT_TYPE_OFFSET = inExit(SystemEventExit.offsets.type)

/** u64: `SyncRegsFlag` bits that KVM_RUN shall fill in. */
export const VALID_REGS_OFFSET = KvmRun.offsets.kvmValidRegs

/** u64: `SyncRegsFlag` bits that KVM_RUN shall take. */
export const DIRTY_REGS_OFFSET = KvmRun.offsets.kvmDirtyRegs

/** Where the `SyncRegs` are. */
export const SYNC_REGS_OFFSET = KvmRun.offsets.s
