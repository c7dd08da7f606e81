/**
 * What the driver means by an error: it answers many refusals with the same few numbers.
 *
 * Facts: Linux `drivers/virt/acrn/{hsm,vm,mm,ioreq,ioeventfd,irqfd}.c`. Results of hypercalls pass through the driver as
 * they are, so that EPERM is mostly ACRN's own -1.
 */
import type { HsmIoctlName } from "../../domain/abi/HsmIoctl.ts"
import { Errno } from "../../domain/Errno.ts"

type Meanings = Readonly<Partial<Record<keyof typeof Errno, string>>>

const NO_EXTENSION = "this hypervisor does not have the hypercall"

const OPENED: Meanings = {
  ENOENT: "there is no such device: the kernel lacks CONFIG_ACRN_HSM, or did not start as an ACRN Service VM; " +
    "`upcall doctor` tells which",
  EACCES: "the device belongs to root; run as root, or give a group access to it by a udev rule",
  EPERM: "the device belongs to root; run as root, or give a group access to it by a udev rule",
  ENXIO: "the device's driver is gone; load the module acrn",
  ENODEV: "the device's driver is gone; load the module acrn",
  ENOMEM: "the kernel has no memory for another VM; end other programs"
}

const ANY: Meanings = {
  EPERM: "the hypervisor refused; the VM is not in a state in which it accepts this, or a value is out of its range",
  EFAULT: "an address of this program could not be read, written or pinned by the driver",
  ENOMEM: "the kernel has not enough memory, or not enough of it in one piece; use smaller VMs or fewer",
  EINVAL: "the driver or the hypervisor found a value that cannot be, or the file has no VM any more",
  ENOTTY: "the hypervisor has no such hypercall, or the driver is older than the request; update it",
  ENOSYS: "the hypervisor has no such hypercall; update it",
  EINTR: "a signal came first; ask again"
}

const BY_REQUEST: Readonly<Partial<Record<HsmIoctlName, Meanings>>> = {
  CreateVm: {
    EINVAL: "the hypervisor has no VM left that can be launched, or none of that name, or refused the processors, or " +
      "the I/O request page could not be pinned; the driver tells which only in the kernel's log (`dmesg`)"
  },
  DestroyVm: { EPERM: "the hypervisor destroys a VM only when it is paused; pause it first" },
  StartVm: { EPERM: "the hypervisor starts a VM only when it was just created or reset" },
  ResetVm: { EPERM: "the hypervisor resets a VM only when it is paused; pause it first" },
  SetVcpuRegs: {
    EPERM: "the hypervisor refused the registers: the VM runs, it has no such vCPU, or CR0 or CR4 cannot be",
    EINVAL: "a reserved field of the registers is not zero, or the file has no VM any more"
  },
  SetMemseg: {
    EINVAL: "the region is empty, of neither RAM nor MMIO, or was refused by the hypervisor",
    EFAULT: "the memory could not be pinned for writing; it must be mapped by this program and writable",
    ENOMEM: "the driver has no room for the region: a VM has at most 256 of RAM, and the list of its pages must fit " +
      "into one piece of the kernel's memory"
  },
  UnsetMemseg: {
    EINVAL: "only MMIO can be taken away, and only what is mapped; the driver keeps RAM until the VM is destroyed"
  },
  InjectMsi: { EINVAL: "the hypervisor found no such vCPU or vector in the message", ENOTTY: NO_EXTENSION },
  VmIntrMonitor: { EFAULT: "the page for the counts could not be pinned", ENOTTY: NO_EXTENSION },
  SetIrqLine: { EPERM: "the VM has no such line" },
  NotifyRequestFinish: { EINVAL: "the VM has no such vCPU, or there is no VM on the file any more" },
  CreateIoreqClient: { EEXIST: "the VM has its client already", EINVAL: "the driver had no memory for a client" },
  AttachIoreqClient: { ENODEV: "the VM's client was destroyed, or was never made" },
  IoEventFd: {
    EINVAL: "the width is not 1, 2, 4 or 8 bytes, the range wraps, or the file is no eventfd",
    EEXIST: "this eventfd is at that address already",
    EBADF: "the eventfd is not open"
  },
  IrqFd: {
    EBUSY: "this eventfd raises an interrupt already",
    EBADF: "the eventfd is not open",
    EINVAL: "the file is no eventfd"
  }
}

const names = new Map<number, keyof typeof Errno>(
  Object.entries(Errno).map(([name, value]) => [value, name as keyof typeof Errno])
)

const UNKNOWN = "the driver's source does not give this error; the kernel's log (`dmesg`) may say more"

export const meaningOf = (request: HsmIoctlName, errno: number): string => {
  const name = names.get(errno)
  return name === undefined ? UNKNOWN : BY_REQUEST[request]?.[name] ?? ANY[name] ?? UNKNOWN
}

export const meaningOfOpen = (errno: number): string => {
  const name = names.get(errno)
  return name === undefined ? UNKNOWN : OPENED[name] ?? UNKNOWN
}
