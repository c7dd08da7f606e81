/**
 * The requests of /dev/acrn_hsm, as `<linux/acrn.h>` numbers them: `ACRN_IOCTL_*`.
 *
 * @since 0.1.0
 */
import { IoEventFd } from "./IoEventFd.ts"
import { IoRequestNotify } from "./IoRequestNotify.ts"
import { IrqFd } from "./IrqFd.ts"
import { MsiEntry } from "./MsiEntry.ts"
import { VcpuRegs } from "./VcpuRegs.ts"
import { VmCreation } from "./VmCreation.ts"
import { VmMemmap } from "./VmMemmap.ts"

// `_IOC` of Linux's include/uapi/asm-generic/ioctl.h.
const TYPE = 0xa2
const encode = (direction: number, number: number, bytes: number): number =>
  (direction << 30 | bytes << 16 | TYPE << 8 | number) >>> 0

const io = (number: number) => encode(0, number, 0)
const iow = (number: number, bytes: number) => encode(1, number, bytes)
const iowr = (number: number, bytes: number) => encode(3, number, bytes)

const WORD_BYTES = 8

/**
 * Those that Upcall uses.
 *
 * @category constants
 * @since 0.1.0
 */
export const HsmIoctl = {
  CreateVm: iowr(0x10, VmCreation.size),
  DestroyVm: io(0x11),
  StartVm: io(0x12),
  PauseVm: io(0x13),
  ResetVm: io(0x15),
  SetVcpuRegs: iow(0x16, VcpuRegs.size),
  InjectMsi: iow(0x23, MsiEntry.size),
  VmIntrMonitor: iow(0x24, WORD_BYTES),
  SetIrqLine: iow(0x25, WORD_BYTES),
  NotifyRequestFinish: iow(0x31, IoRequestNotify.size),
  CreateIoreqClient: io(0x32),
  AttachIoreqClient: io(0x33),
  DestroyIoreqClient: io(0x34),
  ClearVmIoreq: io(0x35),
  SetMemseg: iow(0x41, VmMemmap.size),
  UnsetMemseg: iow(0x42, VmMemmap.size),
  IoEventFd: iow(0x70, IoEventFd.size),
  IrqFd: iow(0x71, IrqFd.size)
} as const

/**
 * @category models
 * @since 0.1.0
 */
export type HsmIoctlName = keyof typeof HsmIoctl

/**
 * What C calls a request.
 *
 * @category formatting
 * @since 0.1.0
 */
export const cNames: Readonly<Record<HsmIoctlName, string>> = {
  CreateVm: "ACRN_IOCTL_CREATE_VM",
  DestroyVm: "ACRN_IOCTL_DESTROY_VM",
  StartVm: "ACRN_IOCTL_START_VM",
  PauseVm: "ACRN_IOCTL_PAUSE_VM",
  ResetVm: "ACRN_IOCTL_RESET_VM",
  SetVcpuRegs: "ACRN_IOCTL_SET_VCPU_REGS",
  InjectMsi: "ACRN_IOCTL_INJECT_MSI",
  VmIntrMonitor: "ACRN_IOCTL_VM_INTR_MONITOR",
  SetIrqLine: "ACRN_IOCTL_SET_IRQLINE",
  NotifyRequestFinish: "ACRN_IOCTL_NOTIFY_REQUEST_FINISH",
  CreateIoreqClient: "ACRN_IOCTL_CREATE_IOREQ_CLIENT",
  AttachIoreqClient: "ACRN_IOCTL_ATTACH_IOREQ_CLIENT",
  DestroyIoreqClient: "ACRN_IOCTL_DESTROY_IOREQ_CLIENT",
  ClearVmIoreq: "ACRN_IOCTL_CLEAR_VM_IOREQ",
  SetMemseg: "ACRN_IOCTL_SET_MEMSEG",
  UnsetMemseg: "ACRN_IOCTL_UNSET_MEMSEG",
  IoEventFd: "ACRN_IOCTL_IOEVENTFD",
  IrqFd: "ACRN_IOCTL_IRQFD"
}
