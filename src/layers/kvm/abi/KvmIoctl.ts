/**
 * The requests of /dev/kvm and of the files it makes, as `<linux/kvm.h>` numbers them: `KVM_*`. A number carries the
 * size of its structure, so it comes from that structure's table.
 */
import { EnableCap } from "./Capability.ts"
import { ClockData } from "./Clock.ts"
import { Cpuid2Header } from "./Cpuid.ts"
import { IoEventFd, IrqFd } from "./EventFds.ts"
import { Fpu, Xcrs, Xsave } from "./FloatingPoint.ts"
import { Interrupt, IrqLevel, LapicState, Msi } from "./Interrupts.ts"
import { IrqChip, PitConfig, PitState2 } from "./IrqChips.ts"
import { IrqRoutingHeader } from "./IrqRouting.ts"
import { ClearDirtyLog, DirtyLog, UserspaceMemoryRegion } from "./Memory.ts"
import { MsrListHeader, MsrsHeader } from "./Msr.ts"
import { DebugRegs, Regs, Sregs } from "./Registers.ts"
import { SignalMask } from "./SignalMask.ts"
import { MpState, VcpuEvents } from "./VcpuEvents.ts"

/** What GET_API_VERSION must return: KVM_API_VERSION. */
export const API_VERSION = 12

/** What the caller does with the structure, of which it may do both: `_IOC_*` of Linux's include/uapi/asm-generic/ioctl.h. */
export const Direction = { NONE: 0, WRITE: 1, READ: 2 } as const

// KVMIO.
const TYPE = 0xae

/** The number of a request that carries `bytes` bytes, as C's `_IOC` makes it. */
export const ioctl = (direction: number, number: number, bytes: number): number =>
  (direction << 30 | bytes << 16 | TYPE << 8 | number) >>> 0

const io = (number: number) => ioctl(Direction.NONE, number, 0)
const iow = (number: number, bytes: number) => ioctl(Direction.WRITE, number, bytes)
const ior = (number: number, bytes: number) => ioctl(Direction.READ, number, bytes)
const iowr = (number: number, bytes: number) => ioctl(Direction.READ | Direction.WRITE, number, bytes)

const WORD_BYTES = 8

/** Those that a VMM on x86 needs, each under C's name without its prefix. */
export const KvmIoctl = {
  // Of /dev/kvm.
  GET_API_VERSION: io(0x00),
  CREATE_VM: io(0x01),
  GET_MSR_INDEX_LIST: iowr(0x02, MsrListHeader.size),
  CHECK_EXTENSION: io(0x03),
  GET_VCPU_MMAP_SIZE: io(0x04),
  GET_SUPPORTED_CPUID: iowr(0x05, Cpuid2Header.size),

  // Of a VM; CHECK_EXTENSION and ENABLE_CAP too.
  CREATE_VCPU: io(0x41),
  GET_DIRTY_LOG: iow(0x42, DirtyLog.size),
  SET_USER_MEMORY_REGION: iow(0x46, UserspaceMemoryRegion.size),
  SET_TSS_ADDR: io(0x47),
  SET_IDENTITY_MAP_ADDR: iow(0x48, WORD_BYTES),
  CREATE_IRQCHIP: io(0x60),
  IRQ_LINE: iow(0x61, IrqLevel.size),
  GET_IRQCHIP: iowr(0x62, IrqChip.size),
  // Wrong way round in C, too.
  SET_IRQCHIP: ior(0x63, IrqChip.size),
  SET_GSI_ROUTING: iow(0x6a, IrqRoutingHeader.size),
  IRQFD: iow(0x76, IrqFd.size),
  CREATE_PIT2: iow(0x77, PitConfig.size),
  IOEVENTFD: iow(0x79, IoEventFd.size),
  SET_CLOCK: iow(0x7b, ClockData.size),
  GET_CLOCK: ior(0x7c, ClockData.size),
  GET_PIT2: ior(0x9f, PitState2.size),
  SET_PIT2: iow(0xa0, PitState2.size),
  SIGNAL_MSI: iow(0xa5, Msi.size),
  CLEAR_DIRTY_LOG: iowr(0xc0, ClearDirtyLog.size),

  // Of a vCPU.
  RUN: io(0x80),
  GET_REGS: ior(0x81, Regs.size),
  SET_REGS: iow(0x82, Regs.size),
  GET_SREGS: ior(0x83, Sregs.size),
  SET_SREGS: iow(0x84, Sregs.size),
  INTERRUPT: iow(0x86, Interrupt.size),
  GET_MSRS: iowr(0x88, MsrsHeader.size),
  SET_MSRS: iow(0x89, MsrsHeader.size),
  SET_SIGNAL_MASK: iow(0x8b, SignalMask.size),
  GET_FPU: ior(0x8c, Fpu.size),
  SET_FPU: iow(0x8d, Fpu.size),
  GET_LAPIC: ior(0x8e, LapicState.size),
  SET_LAPIC: iow(0x8f, LapicState.size),
  SET_CPUID2: iow(0x90, Cpuid2Header.size),
  GET_CPUID2: iowr(0x91, Cpuid2Header.size),
  GET_MP_STATE: ior(0x98, MpState.size),
  SET_MP_STATE: iow(0x99, MpState.size),
  NMI: io(0x9a),
  GET_VCPU_EVENTS: ior(0x9f, VcpuEvents.size),
  SET_VCPU_EVENTS: iow(0xa0, VcpuEvents.size),
  GET_DEBUGREGS: ior(0xa1, DebugRegs.size),
  SET_DEBUGREGS: iow(0xa2, DebugRegs.size),
  SET_TSC_KHZ: io(0xa2),
  GET_TSC_KHZ: io(0xa3),
  ENABLE_CAP: iow(0xa3, EnableCap.size),
  GET_XSAVE: ior(0xa4, Xsave.size),
  SET_XSAVE: iow(0xa5, Xsave.size),
  GET_XCRS: ior(0xa6, Xcrs.size),
  SET_XCRS: iow(0xa7, Xcrs.size),
  KVMCLOCK_CTRL: io(0xad),
  GET_XSAVE2: ior(0xcf, Xsave.size)
} as const

export type KvmIoctlName = keyof typeof KvmIoctl

/** What C calls a request. */
export const ioctlCName = (name: KvmIoctlName): string => `KVM_${name}`
