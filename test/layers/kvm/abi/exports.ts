/** Every structure and constant of src/layers/kvm/abi, found among its exports so that none can be left out. */
import type * as Layout from "../../../../src/domain/abi/Layout.ts"
import * as Capability from "../../../../src/layers/kvm/abi/Capability.ts"
import * as Clock from "../../../../src/layers/kvm/abi/Clock.ts"
import * as Cpuid from "../../../../src/layers/kvm/abi/Cpuid.ts"
import * as EventFds from "../../../../src/layers/kvm/abi/EventFds.ts"
import * as ExitReason from "../../../../src/layers/kvm/abi/ExitReason.ts"
import * as FloatingPoint from "../../../../src/layers/kvm/abi/FloatingPoint.ts"
import * as Interrupts from "../../../../src/layers/kvm/abi/Interrupts.ts"
import * as IrqChips from "../../../../src/layers/kvm/abi/IrqChips.ts"
import * as IrqRouting from "../../../../src/layers/kvm/abi/IrqRouting.ts"
import * as KvmIoctl from "../../../../src/layers/kvm/abi/KvmIoctl.ts"
import * as KvmRun from "../../../../src/layers/kvm/abi/KvmRun.ts"
import * as Memory from "../../../../src/layers/kvm/abi/Memory.ts"
import * as Msr from "../../../../src/layers/kvm/abi/Msr.ts"
import * as Registers from "../../../../src/layers/kvm/abi/Registers.ts"
import * as SignalMask from "../../../../src/layers/kvm/abi/SignalMask.ts"
import * as VcpuEvents from "../../../../src/layers/kvm/abi/VcpuEvents.ts"

// A layout's coding takes the values of its own table only; the tests hand it values they got from it.
type AnyLayout = Layout.Struct & {
  readonly decode: (bytes: Uint8Array, offset?: number) => ReturnType<Layout.Layout<Layout.Fields>["decode"]>
  readonly encode: (value: never) => ReturnType<Layout.Layout<Layout.Fields>["encode"]>
}

type Codes = Readonly<Record<string, number | bigint>>

// Sorted, for the order of a module's exports is the loader's affair.
const exported: ReadonlyArray<readonly [name: string, value: unknown]> = [
  Capability,
  Clock,
  Cpuid,
  EventFds,
  ExitReason,
  FloatingPoint,
  Interrupts,
  IrqChips,
  IrqRouting,
  KvmIoctl,
  KvmRun,
  Memory,
  Msr,
  Registers,
  SignalMask,
  VcpuEvents
].flatMap((module) => Object.entries<unknown>(module).toSorted(([a], [b]) => (a < b ? -1 : 1)))

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

const isLayout = (value: unknown): value is AnyLayout => isRecord(value) && "fields" in value && "offsets" in value

const isNumber = (value: unknown): value is number | bigint => typeof value === "number" || typeof value === "bigint"

const isCodes = (value: unknown): value is Codes => isRecord(value) && Object.values(value).every(isNumber)

export const structures: ReadonlyArray<AnyLayout> = exported.map(([, value]) => value).filter(isLayout)

/** What C writes before each key of a table of codes. */
const prefixes: Readonly<Record<string, string>> = {
  Capability: "KVM_CAP_",
  ClockFlag: "KVM_CLOCK_",
  CpuidFlag: "KVM_CPUID_FLAG_",
  Direction: "_IOC_",
  DisabledExit: "KVM_X86_DISABLE_EXITS_",
  EmulationFailureFlag: "KVM_INTERNAL_ERROR_EMULATION_FLAG_",
  ExitReason: "KVM_EXIT_",
  InternalError: "KVM_INTERNAL_ERROR_",
  InterruptShadow: "KVM_X86_SHADOW_",
  IoDirection: "KVM_EXIT_IO_",
  IoEventFdFlag: "KVM_IOEVENTFD_FLAG_",
  IrqChipId: "KVM_IRQCHIP_",
  IrqFdFlag: "KVM_IRQFD_FLAG_",
  IrqRoutingType: "KVM_IRQ_ROUTING_",
  KvmIoctl: "KVM_",
  ManualDirtyLog: "KVM_DIRTY_LOG_",
  MemoryRegionFlag: "KVM_MEM_",
  MpStateCode: "KVM_MP_STATE_",
  MsrExitReason: "KVM_MSR_EXIT_REASON_",
  PitConfigFlag: "KVM_PIT_",
  PitStateFlag: "KVM_PIT_FLAGS_",
  RunFlag: "KVM_RUN_X86_",
  SyncRegsFlag: "KVM_SYNC_X86_",
  SystemEvent: "KVM_SYSTEM_EVENT_",
  VcpuEventsFlag: "KVM_VCPUEVENT_VALID_",
  X2ApicApi: "KVM_X2APIC_API_"
}

const inRun = (member: string): string => `offsetof(struct kvm_run, ${member})`

/** The C expression of each number that is exported by itself. */
const expressions: Readonly<Record<string, string>> = {
  API_VERSION: "KVM_API_VERSION",
  IOAPIC_PINS: "KVM_IOAPIC_NUM_PINS",
  MAX_XCRS: "KVM_MAX_XCRS",
  PIO_PAGE: "KVM_PIO_PAGE_OFFSET",
  REQUEST_INTERRUPT_WINDOW_OFFSET: inRun("request_interrupt_window"),
  IMMEDIATE_EXIT_OFFSET: inRun("immediate_exit"),
  EXIT_REASON_OFFSET: inRun("exit_reason"),
  READY_FOR_INTERRUPT_INJECTION_OFFSET: inRun("ready_for_interrupt_injection"),
  IF_FLAG_OFFSET: inRun("if_flag"),
  RUN_FLAGS_OFFSET: inRun("flags"),
  CR8_OFFSET: inRun("cr8"),
  APIC_BASE_OFFSET: inRun("apic_base"),
  EXIT_OFFSET: inRun("hw"),
  IO_DIRECTION_OFFSET: inRun("io.direction"),
  IO_SIZE_OFFSET: inRun("io.size"),
  IO_PORT_OFFSET: inRun("io.port"),
  IO_COUNT_OFFSET: inRun("io.count"),
  IO_DATA_OFFSET_OFFSET: inRun("io.data_offset"),
  MMIO_ADDRESS_OFFSET: inRun("mmio.phys_addr"),
  MMIO_DATA_OFFSET: inRun("mmio.data"),
  MMIO_LENGTH_OFFSET: inRun("mmio.len"),
  MMIO_IS_WRITE_OFFSET: inRun("mmio.is_write"),
  INTERNAL_SUBERROR_OFFSET: inRun("internal.suberror"),
  SYSTEM_EVENT_TYPE_OFFSET: inRun("system_event.type"),
  VALID_REGS_OFFSET: inRun("kvm_valid_regs"),
  DIRTY_REGS_OFFSET: inRun("kvm_dirty_regs"),
  SYNC_REGS_OFFSET: inRun("s.regs")
}

const named = (table: Readonly<Record<string, string>>, name: string): string => {
  const found = table[name]
  if (found === undefined) {
    throw new Error(`${name} of src/layers/kvm/abi is compared with nothing in C; say here what C calls it`)
  }
  return found
}

/** Each constant with the C expression that must have its value. */
export const constants: ReadonlyArray<readonly [expression: string, value: number | bigint]> = [
  ...exported.flatMap(([name, value]) =>
    isNumber(value)
      ? [[named(expressions, name), value] as const]
      : isCodes(value)
      ? Object.entries(value).map(([key, code]) => [`${named(prefixes, name)}${key}`, code] as const)
      : []
  ),
  ...Object.keys(KvmRun.exitDetails).map((member) => [inRun(member), KvmRun.EXIT_OFFSET] as const)
]
