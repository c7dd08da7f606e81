/**
 * One VM as the kernel has it: its file, and those of its vCPUs.
 */
import * as Result from "effect/Result"
import type { Libc } from "../native/Libc.ts"
import { Cpuid2 } from "./abi/Cpuid.ts"
import { IrqLevel } from "./abi/Interrupts.ts"
import { KvmIoctl } from "./abi/KvmIoctl.ts"
import { MemoryRegionFlag, UserspaceMemoryRegion } from "./abi/Memory.ts"
import { leavesFor } from "./cpuid.ts"
import type { KvmSystem } from "./KvmSystem.ts"
import { VcpuFile } from "./VcpuFile.ts"

// Where every VMM puts what Intel's processors need in guest memory to run real mode: four pages below the firmware.
const IDENTITY_MAP_ADDRESS = 0xfffb_c000n
const TSS_ADDRESS = 0xfffb_d000

export interface VmFileOptions {
  readonly vcpus: number
  /** With the kernel's interrupt controllers: a pair of 8259s, an I/O APIC, and a local APIC for each vCPU. */
  readonly hasIrqChip: boolean
}

export class VmFile {
  readonly fd: number
  readonly vcpus: ReadonlyArray<VcpuFile>
  private readonly libc: Libc
  private readonly region = new Uint8Array(UserspaceMemoryRegion.size)
  private readonly level = new Uint8Array(IrqLevel.size)
  private isClosed = false

  private constructor(libc: Libc, fd: number, vcpus: ReadonlyArray<VcpuFile>) {
    this.libc = libc
    this.fd = fd
    this.vcpus = vcpus
  }

  /** A new VM, or the negative errno of the first step that failed, with nothing left behind. */
  static make(libc: Libc, system: KvmSystem, options: VmFileOptions): VmFile | number {
    const fd = libc.ioctl(system.fd, KvmIoctl.CREATE_VM, 0)
    if (fd < 0) return fd
    const vcpus: Array<VcpuFile> = []
    const result = prepareVm(libc, fd, options) || makeVcpus(libc, system, fd, options.vcpus, vcpus)
    if (result === 0) return new VmFile(libc, fd, vcpus)
    for (const vcpu of vcpus) vcpu.close()
    libc.close(fd)
    return result
  }

  /** Asks the kernel with a structure that it reads or fills in: 0 or positive, or a negative errno. */
  ask(request: number, structure: Uint8Array): number {
    return this.libc.ioctlAt(this.fd, request, structure)
  }

  /** Makes a memory slot, or with no bytes takes it away. */
  setSlot(slot: number, guest: number, bytes: number, host: number, flags: number): number {
    const region = {
      slot,
      flags,
      guestPhysAddr: BigInt(guest),
      memorySize: BigInt(bytes),
      userspaceAddr: BigInt(host)
    }
    Result.getOrThrow(UserspaceMemoryRegion.encodeInto(region, this.region))
    return this.ask(KvmIoctl.SET_USER_MEMORY_REGION, this.region)
  }

  setLine(gsi: number, high: boolean): number {
    Result.getOrThrow(IrqLevel.encodeInto({ irq: gsi, level: high ? 1 : 0 }, this.level))
    return this.ask(KvmIoctl.IRQ_LINE, this.level)
  }

  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    for (const vcpu of this.vcpus) vcpu.close()
    this.libc.close(this.fd)
  }
}

/** What has to be there before the first vCPU. */
const prepareVm = (libc: Libc, fd: number, { hasIrqChip }: VmFileOptions): number => {
  const address = new Uint8Array(new BigUint64Array([IDENTITY_MAP_ADDRESS]).buffer)
  // Processors that need neither may refuse both.
  libc.ioctlAt(fd, KvmIoctl.SET_IDENTITY_MAP_ADDR, address)
  libc.ioctl(fd, KvmIoctl.SET_TSS_ADDR, TSS_ADDRESS)
  return hasIrqChip ? Math.min(0, libc.ioctl(fd, KvmIoctl.CREATE_IRQCHIP, 0)) : 0
}

const makeVcpus = (libc: Libc, system: KvmSystem, vm: number, count: number, into: Array<VcpuFile>): number => {
  for (let id = 0; id < count; id++) {
    const fd = libc.ioctl(vm, KvmIoctl.CREATE_VCPU, id)
    if (fd < 0) return fd
    const mapping = libc.mapShared(fd, system.runBytes)
    if (typeof mapping === "number") {
      libc.close(fd)
      return mapping
    }
    const vcpu = new VcpuFile(libc, id, fd, mapping)
    into.push(vcpu)
    const leaves = Result.getOrThrow(Cpuid2.encode(leavesFor(system.cpuid, id, count)))
    const result = vcpu.ask(KvmIoctl.SET_CPUID2, leaves)
    if (result < 0) return result
  }
  return 0
}

/** The flags of a slot that the guest may only read, or not. */
export const slotFlags = (isReadOnly: boolean): number => isReadOnly ? MemoryRegionFlag.READONLY : 0
