/**
 * One VM as the kernel has it: its file, and those of its vCPUs.
 */
import * as Result from "effect/Result"
import { Errno } from "../../domain/Errno.ts"
import type { Libc } from "../native/Libc.ts"
import { IrqLevel } from "./abi/Interrupts.ts"
import { PitConfig, PitConfigFlag } from "./abi/IrqChips.ts"
import { KvmIoctl } from "./abi/KvmIoctl.ts"
import { MemoryRegionFlag, UserspaceMemoryRegion } from "./abi/Memory.ts"
import type { KvmSystem } from "./KvmSystem.ts"
import { VcpuFile } from "./VcpuFile.ts"
import type { VcpuSetup } from "./VcpuSetup.ts"

// Where every VMM puts what Intel's processors need in guest memory to run real mode: four pages below the firmware.
const IDENTITY_MAP_ADDRESS = 0xfffb_c000n
const TSS_ADDRESS = 0xfffb_d000

// Of a profiler a signal comes every millisecond.
const MOST_TRIES = 100

export interface VmFileOptions {
  readonly vcpus: number
  /** With the kernel's interrupt controllers: a pair of 8259s, an I/O APIC, and a local APIC for each vCPU. */
  readonly hasIrqChip: boolean
  /** With the kernel's 8254, which needs those. */
  readonly hasTimer: boolean
  readonly setup: VcpuSetup
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
    const fd = whole(() => libc.ioctl(system.fd, KvmIoctl.CREATE_VM, 0))
    if (fd < 0) return fd
    const vcpus: Array<VcpuFile> = []
    const result = prepareVm(libc, fd, options) || makeVcpus(libc, system, fd, options, vcpus)
    if (result === 0) return new VmFile(libc, fd, vcpus)
    for (const vcpu of vcpus) vcpu.close()
    libc.close(fd)
    return result
  }

  /** Asks the kernel with a structure that it reads or fills in: 0 or positive, or a negative errno. */
  ask(request: number, structure: Uint8Array): number {
    return whole(() => this.libc.ioctlAt(this.fd, request, structure))
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

/** The result of a call that a signal can end before it did anything. */
const whole = (call: () => number): number => {
  let result = call()
  for (let tries = 1; result === -Errno.EINTR && tries < MOST_TRIES; tries++) result = call()
  return result
}

// Its speaker gate is at port 0x61, where guests read the second channel.
const timer = Result.getOrThrow(PitConfig.encode({ flags: PitConfigFlag.SPEAKER_DUMMY }))

/** What has to be there before the first vCPU. */
const prepareVm = (libc: Libc, fd: number, { hasIrqChip, hasTimer, setup }: VmFileOptions): number => {
  setup.prepare(fd)
  const address = new Uint8Array(new BigUint64Array([IDENTITY_MAP_ADDRESS]).buffer)
  // Processors that need neither may refuse both.
  libc.ioctlAt(fd, KvmIoctl.SET_IDENTITY_MAP_ADDR, address)
  libc.ioctl(fd, KvmIoctl.SET_TSS_ADDR, TSS_ADDRESS)
  const chips = hasIrqChip ? whole(() => libc.ioctl(fd, KvmIoctl.CREATE_IRQCHIP, 0)) : 0
  return Math.min(0, chips < 0 || !hasTimer ? chips : whole(() => libc.ioctlAt(fd, KvmIoctl.CREATE_PIT2, timer)))
}

const makeVcpus = (
  libc: Libc,
  system: KvmSystem,
  vm: number,
  { setup, vcpus }: VmFileOptions,
  into: Array<VcpuFile>
): number => {
  for (let id = 0; id < vcpus; id++) {
    const fd = whole(() => libc.ioctl(vm, KvmIoctl.CREATE_VCPU, id))
    if (fd < 0) return fd
    const mapping = libc.mapShared(fd, system.runBytes)
    if (typeof mapping === "number") {
      libc.close(fd)
      return mapping
    }
    const vcpu = new VcpuFile(libc, id, fd, mapping)
    into.push(vcpu)
    const result = setup.apply(vcpu, vcpus)
    if (result < 0) return result
  }
  return 0
}

/** The flags of a slot: whether the guest may only read it, and whether the kernel notes what it writes. */
export const slotFlags = (isReadOnly: boolean, isLogged: boolean): number =>
  (isReadOnly ? MemoryRegionFlag.READONLY : 0) | (isLogged ? MemoryRegionFlag.LOG_DIRTY_PAGES : 0)
