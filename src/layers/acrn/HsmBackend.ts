/**
 * Hypercalls as requests to the driver. Each VM is an open file of /dev/acrn_hsm, and a thread that waits in it.
 *
 * The driver is asked nothing that would hurt: it takes any physical address as MMIO, frees a client under its waiter,
 * and starts a VM whose page the hypercalls have not named. So the state of each VM is tracked here, and what a refusal
 * would not undo is refused before.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { HsmIoctlName } from "../../domain/abi/HsmIoctl.ts"
import { cNames } from "../../domain/abi/HsmIoctl.ts"
import { IoRequestNotify } from "../../domain/abi/IoRequestNotify.ts"
import { SLOT_STATE_OFFSET, SlotStateCode } from "../../domain/abi/IoRequestSlot.ts"
import { toWord } from "../../domain/abi/IrqLineWord.ts"
import {
  MEMORY_ACCESS_MASK,
  MEMORY_TYPE_MASK,
  type MemoryRegionOp,
  MemoryRegionOpCode,
  MemoryType
} from "../../domain/abi/MemoryRegionBatch.ts"
import { type Regs, VcpuRegs } from "../../domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../domain/abi/VmCreation.ts"
import { MemmapTypeCode, VmMemmap } from "../../domain/abi/VmMemmap.ts"
import { isPageAligned } from "../../domain/Address.ts"
import { Errno } from "../../domain/Errno.ts"
import type { Hypercall, HypercallOutcome } from "../../domain/Hypercall.ts"
import { ADDRESS_SPACE_END, INVALID_VM_ID, MAX_VCPUS, PAGE_BYTES, SLOT_BYTES } from "../../domain/Limits.ts"
import * as VmState from "../../domain/VmState.ts"
import { type RawBacking, rawBacking } from "../../services/AddressSpace.ts"
import type { HypercallBackend } from "../../services/HypercallBackend.ts"
import type { UpcallHandler } from "../../services/Upcalls.ts"
import type { Libc } from "../native/Libc.ts"
import { AcrnError, type AcrnErrorReason } from "./AcrnError.ts"
import type { HsmFile } from "./HsmFile.ts"
import { meaningOf, meaningOfOpen } from "./meanings.ts"
import { allocatePages, RequestPageBacking, type UserSpace } from "./UserMemory.ts"
import type { ReadyThread, Waiter, Waiters } from "./Waiters.ts"

const OK: HypercallOutcome = { result: 0 }
const EPERM: HypercallOutcome = { result: -Errno.EPERM }

export interface MmioWindow {
  readonly address: number
  readonly bytes: number
}

export interface HsmOptions {
  readonly device: string
  readonly processors: ReadonlyArray<number> | undefined
  readonly names: ReadonlyArray<string>
  readonly vmFlags: bigint
  readonly mmio: ReadonlyArray<MmioWindow>
}

export interface HsmBackendOptions extends HsmOptions {
  readonly libc: Pick<Libc, "addressOf" | "forbidHugePages">
  readonly openHsm: (path: string) => HsmFile | number
  readonly space: UserSpace
  readonly raise: UpcallHandler
  readonly waiters: Pick<Waiters, "take">
}

interface Span {
  readonly start: number
  readonly end: number
}

export interface HsmVm {
  readonly id: number
  readonly name: string | undefined
  readonly file: HsmFile
  readonly vcpus: number
  /** What the driver has as its I/O request page. */
  readonly page: Uint8Array<SharedArrayBuffer>
  readonly pageBacking: RawBacking
  readonly notifications: ReadonlyArray<Uint8Array>
  /** What each vCPU was last given: a reset takes it away. */
  readonly registers: Map<number, Uint8Array>
  readonly ram: Array<Span>
  /** Called when the driver has it no more. */
  readonly atEnd: Set<() => void>
  state: VmState.VmState
  /** The page that shows {@link page}, once the hypercall has named it. */
  shownAt: RequestPageBacking | undefined
  waiter: Waiter
}

// The driver lists the pages of one request in one piece of kernel memory, 32 bytes each: 512 KiB for this much.
const MAX_SEGMENT_BYTES = 64 * 2 ** 20

/** Requests for RAM that the driver takes for one VM (`ACRN_MEM_MAPPING_MAX`). */
const MAX_SEGMENTS = 256

/** The most RAM that a VM of this layer can have, in bytes. */
export const MAX_RAM_BYTES = MAX_SEGMENTS * MAX_SEGMENT_BYTES

const KEPT_REFUSALS = 64
/** Bytes of a name, the zero at its end among them. */
export const NAME_BYTES = 16

export class HsmBackend implements HypercallBackend {
  readonly refusals: Array<AcrnError> = []
  private readonly options: HsmBackendOptions
  private readonly vms = new Map<number, HsmVm>()

  constructor(options: HsmBackendOptions) {
    this.options = options
  }

  readonly execute = (hypercall: Hypercall): Effect.Effect<HypercallOutcome> =>
    Effect.suspend(() => {
      if (hypercall._tag === "CreateVm") return this.create(hypercall.creation)
      if (hypercall._tag === "NotifyRequestFinish") {
        return Effect.succeed({ result: this.notifyFinish(hypercall.vmId, hypercall.vcpuId) })
      }
      const vm = this.find(hypercall.vmId)
      return vm === undefined ? Effect.succeed(EPERM) : this.perform(vm, hypercall)
    })

  private perform(
    vm: HsmVm,
    hypercall: Exclude<Hypercall, { readonly _tag: "CreateVm" | "NotifyRequestFinish" }>
  ): Effect.Effect<HypercallOutcome> {
    switch (hypercall._tag) {
      case "DestroyVm":
        return this.destroy(vm)
      case "StartVm":
        return Effect.succeed(this.start(vm))
      case "PauseVm":
        return Effect.succeed(this.step(vm, "Pause", "PauseVm"))
      case "ResetVm":
        return Effect.succeed(this.reset(vm))
      case "SetVcpuRegs":
        return Effect.succeed(this.setRegisters(vm, hypercall.vcpuId, hypercall.registers))
      case "SetIoRequestBuffer":
        return Effect.succeed(this.setRequestPage(vm, hypercall.page))
      case "SetMemoryRegions":
        return Effect.succeed({ result: this.setMemory(vm, hypercall.operations) })
      case "SetIrqLine":
        return Effect.succeed({ result: this.setIrqLine(vm.id, hypercall.gsi, hypercall.op) })
    }
  }

  /** The VM of an id, while there is one. */
  find(vmId: number): HsmVm | undefined {
    return this.vms.get(vmId)
  }

  /** Asks the driver, and keeps what it refused. */
  ask(vm: HsmVm, name: HsmIoctlName, argument?: number | Uint8Array): number {
    const result = vm.file.request(name, argument)
    if (result < 0) this.refused(vm.id, name, -result)
    return result
  }

  private refused(vmId: number, name: HsmIoctlName, errno: number): void {
    this.keep({ _tag: "Refused", ioctl: cNames[name], vmId, errno, meaning: meaningOf(name, errno) })
  }

  /** Refuses what the driver would take, or could not undo. */
  private withhold(vm: HsmVm, name: HsmIoctlName, errno: number, problem: string): number {
    this.keep({ _tag: "NotAsked", ioctl: cNames[name], vmId: vm.id, errno, problem })
    return -errno
  }

  private keep(reason: AcrnErrorReason): void {
    if (this.refusals.length === KEPT_REFUSALS) this.refusals.shift()
    this.refusals.push(new AcrnError({ reason }))
  }

  /** The thread is ready before the VM is there, so that its first request waits no longer than the next. */
  private create(asked: VmCreation): Effect.Effect<HypercallOutcome> {
    return Effect.promise(() => this.options.waiters.take()).pipe(
      Effect.map((thread) => {
        const vm = this.createWith(asked, thread)
        if (typeof vm === "number") {
          thread.release()
          return { result: vm }
        }
        this.vms.set(vm.id, vm)
        return { result: 0, created: { vmId: vm.id, vcpuNum: vm.vcpus } }
      }),
      Effect.catchDefect((defect) =>
        Effect.sync(() => {
          this.keep({ _tag: "WaiterEnded", vmId: INVALID_VM_ID, problem: String(defect) })
          return { result: -Errno.EAGAIN }
        })
      ),
      // A thread that was taken is used or released.
      Effect.uninterruptible
    )
  }

  /** The VM, or the negative errno of whoever refused it. */
  private createWith(asked: VmCreation, thread: ReadyThread): HsmVm | number {
    const { device, libc, names, openHsm, vmFlags } = this.options
    const cpuAffinity = this.processorsFor(asked.cpuAffinity)
    if (cpuAffinity === undefined) return -Errno.EPERM
    const file = openHsm(device)
    if (typeof file === "number") {
      this.keep({ _tag: "NoDevice", path: device, errno: -file, meaning: meaningOfOpen(-file) })
      return file
    }
    const page = allocatePages(libc, PAGE_BYTES)
    const isNamed = asked.uuid.some((byte) => byte !== 0)
    const name = isNamed ? undefined : names.find((each) => [...this.vms.values()].every((vm) => vm.name !== each))
    const creation = Result.getOrThrow(VmCreation.encode({
      ...asked,
      vmid: 0,
      vcpuNum: 0,
      uuid: name === undefined ? asked.uuid : nameBytes(name),
      vmFlag: asked.vmFlag | vmFlags,
      ioreqBuf: BigInt(libc.addressOf(page)),
      cpuAffinity
    }))
    const created = file.request("CreateVm", creation)
    if (created < 0) {
      this.refused(INVALID_VM_ID, "CreateVm", -created)
      file.close()
      return created
    }
    const { vcpuNum: vcpus, vmid: id } = Result.getOrThrow(VmCreation.decode(creation))
    const client = file.request("CreateIoreqClient")
    if (client < 0) this.refused(id, "CreateIoreqClient", -client)
    // The driver looks at as many slots as the hypervisor says there are vCPUs, also beyond the page.
    if (client < 0 || vcpus > MAX_VCPUS) {
      file.request("PauseVm")
      file.request("DestroyVm")
      file.close()
      return client < 0 ? client : -Errno.EPERM
    }
    return {
      id,
      name,
      file,
      vcpus,
      page,
      pageBacking: rawBacking(page),
      notifications: Array.from(
        { length: vcpus },
        (_, vcpu) => Result.getOrThrow(IoRequestNotify.encode({ vmid: id, vcpu }))
      ),
      registers: new Map(),
      ram: [],
      atEnd: new Set(),
      state: VmState.created,
      shownAt: undefined,
      waiter: this.wait(thread, { id, file, page, vcpus })
    }
  }

  /** Bits of processors from bits of vCPUs. */
  private processorsFor(vcpus: bigint): bigint | undefined {
    const { processors } = this.options
    if (processors === undefined) return vcpus
    let bits = 0n
    for (let vcpu = 0; vcpus >> BigInt(vcpu) !== 0n; vcpu++) {
      if ((vcpus >> BigInt(vcpu) & 1n) === 0n) continue
      const processor = processors[vcpu]
      if (processor === undefined) return undefined
      bits |= 1n << BigInt(processor)
    }
    return bits
  }

  private wait(thread: ReadyThread, vm: Pick<HsmVm, "id" | "file" | "page" | "vcpus">): Waiter {
    const vmId = vm.id
    return thread.wait({
      fd: vm.file.fd,
      vcpus: vm.vcpus,
      page: vm.page,
      onRequest: (vcpu) => this.options.raise({ vmId, vcpu }),
      onFailure: (problem) => this.keep({ _tag: "WaiterEnded", vmId, problem })
    })
  }

  /** The driver named its page to the hypervisor long ago; by the hypercalls it may not be named yet. */
  private start(vm: HsmVm): HypercallOutcome {
    return vm.shownAt === undefined
      ? { result: this.withhold(vm, "StartVm", Errno.EPERM, "SET_IOREQ_BUFFER has not named a page") }
      : this.step(vm, "Start", "StartVm")
  }

  private step(vm: HsmVm, command: VmState.VmCommand, name: HsmIoctlName): HypercallOutcome {
    const result = this.ask(vm, name)
    if (result >= 0) vm.state = VmState.target(vm.state, command) ?? vm.state
    return { result }
  }

  /** The driver wants its requests cleared while the VM is paused, before it is reset. */
  private reset(vm: HsmVm): HypercallOutcome {
    if (vm.state._tag === "Paused") this.ask(vm, "ClearVmIoreq")
    const outcome = this.step(vm, "Reset", "ResetVm")
    vm.waiter.allFinished()
    if (outcome.result >= 0) {
      for (const registers of vm.registers.values()) this.ask(vm, "SetVcpuRegs", registers)
    }
    return outcome
  }

  private setRegisters(vm: HsmVm, vcpuId: number, registers: Regs): HypercallOutcome {
    const encoded = VcpuRegs.encode({ vcpuId, vcpuRegs: registers })
    if (Result.isFailure(encoded)) return EPERM
    const result = this.ask(vm, "SetVcpuRegs", encoded.success)
    if (result >= 0) vm.registers.set(vcpuId, encoded.success)
    return { result }
  }

  /** The driver named its page when the VM was created; this shows it where the hypercall wants it to be. */
  private setRequestPage(vm: HsmVm, address: bigint): HypercallOutcome {
    const refuse = (problem: string) => ({ result: this.withhold(vm, "CreateVm", Errno.EPERM, problem) })
    if (vm.state._tag !== "Created") return refuse("a page can be named only before the VM starts")
    const backing = address < BigInt(ADDRESS_SPACE_END)
      ? this.options.space.find(Number(address), PAGE_BYTES)?.backing
      : undefined
    vm.shownAt?.show(undefined)
    vm.shownAt = backing instanceof RequestPageBacking ? backing : undefined
    if (vm.shownAt === undefined) return refuse("the page must be one that was allocated as an I/O request page")
    vm.shownAt.show(vm.pageBacking)
    const page = vm.pageBacking.page(0)
    for (let slot = 0; slot < MAX_VCPUS; slot++) page.store32(slot * SLOT_BYTES + SLOT_STATE_OFFSET, SlotStateCode.Free)
    return OK
  }

  private setMemory(vm: HsmVm, operations: ReadonlyArray<MemoryRegionOp>): number {
    if (operations.length === 0) return -Errno.EPERM
    for (const operation of operations) {
      const result = operation.type === MemoryRegionOpCode.Add ? this.map(vm, operation) : this.unmap(vm, operation)
      if (result < 0) return result
    }
    return 0
  }

  private map(vm: HsmVm, { attr, serviceVmPa, size, userVmPa }: MemoryRegionOp): number {
    const guest = Number(userVmPa)
    const service = Number(serviceVmPa)
    const bytes = Number(size)
    const refuse = (errno: number, problem: string) => this.withhold(vm, "SetMemseg", errno, problem)
    if (![guest, service, bytes].every(isPageAligned) || guest + bytes > ADDRESS_SPACE_END) {
      return refuse(Errno.EINVAL, "the driver takes whole pages; it rounds what is none without a word")
    }
    const rights = attr & MEMORY_ACCESS_MASK
    switch (attr & MEMORY_TYPE_MASK) {
      case MemoryType.WriteBack:
        return this.options.space.holds(service, bytes)
          ? this.mapRam(vm, guest, service, bytes, rights)
          : refuse(Errno.EPERM, "the memory is not all from ServiceMemory; the driver would pin any of this process")
      case MemoryType.Uncached: {
        const isOpen = this.options.mmio.some((window) =>
          service >= window.address && service + bytes <= window.address + window.bytes
        )
        return isOpen
          ? this.segment(vm, "SetMemseg", MemmapTypeCode.Mmio, guest, service, bytes, rights)
          : refuse(Errno.EPERM, "uncached memory is MMIO of the board, and this is in no window of the option mmio")
      }
      default:
        return refuse(Errno.EINVAL, "the driver maps RAM as write-back and MMIO as uncached, and nothing else")
    }
  }

  private mapRam(vm: HsmVm, guest: number, service: number, bytes: number, rights: number): number {
    for (let done = 0; done < bytes; done += MAX_SEGMENT_BYTES) {
      const part = Math.min(MAX_SEGMENT_BYTES, bytes - done)
      const result = this.segment(vm, "SetMemseg", MemmapTypeCode.Ram, guest + done, service + done, part, rights)
      if (result < 0) return result
      vm.ram.push({ start: guest + done, end: guest + done + part })
    }
    return 0
  }

  /** As the driver, MMIO alone; it would not look whether it is. */
  private unmap(vm: HsmVm, { size, userVmPa }: MemoryRegionOp): number {
    const guest = Number(userVmPa)
    const bytes = Number(size)
    const refuse = (problem: string) => this.withhold(vm, "UnsetMemseg", Errno.EINVAL, problem)
    if (![guest, bytes].every(isPageAligned) || guest + bytes > ADDRESS_SPACE_END) {
      return refuse("the region is not of whole pages below 2^52")
    }
    if (vm.ram.some(({ end, start }) => Math.max(start, guest) < Math.min(end, guest + bytes))) {
      return refuse("a part of it is RAM, which the driver keeps until the VM is destroyed")
    }
    return this.segment(vm, "UnsetMemseg", MemmapTypeCode.Mmio, guest, 0, bytes, 0)
  }

  private segment(
    vm: HsmVm,
    name: "SetMemseg" | "UnsetMemseg",
    type: number,
    guest: number,
    service: number,
    bytes: number,
    attr: number
  ): number {
    const memmap = Result.getOrThrow(VmMemmap.encode({
      type,
      attr,
      userVmPa: BigInt(guest),
      vmaBase: BigInt(service),
      len: BigInt(bytes)
    }))
    return this.ask(vm, name, memmap)
  }

  /** SET_IRQLINE takes its structure in the argument itself. */
  setIrqLine(vmId: number, gsi: number, op: number): number {
    const vm = this.find(vmId)
    return vm === undefined ? -Errno.EPERM : this.ask(vm, "SetIrqLine", Number(toWord({ gsi, op })))
  }

  /** The driver stores COMPLETE and tells the hypervisor, which cuts both ids to 16 bits. */
  readonly notifyFinish = (vmId: number, vcpu: number): number => {
    const vm = this.vms.get(vmId & 0xffff)
    const notification = vm?.notifications[vcpu & 0xffff]
    if (vm === undefined || notification === undefined) return -Errno.EPERM
    const result = this.ask(vm, "NotifyRequestFinish", notification)
    vm.waiter.finished(vcpu & 0xffff)
    return result
  }

  /**
   * The waiter leaves before the driver frees the client that it waits for. A VM that is not paused is not even asked
   * about: the hypervisor would refuse, and a driver over one that does not would free the client.
   */
  private destroy(vm: HsmVm): Effect.Effect<HypercallOutcome> {
    return Effect.suspend(() => {
      if (vm.state._tag !== "Paused") {
        const problem = "the hypervisor destroys a VM only when it is paused; pause it first"
        return Effect.succeed({ result: this.withhold(vm, "DestroyVm", Errno.EPERM, problem) })
      }
      const { waiter } = vm
      waiter.leave()
      const result = this.ask(vm, "DestroyVm")
      if (result >= 0) this.forget(vm)
      return Effect.promise(() => waiter.gone).pipe(
        Effect.andThen(result < 0 ? this.waitAgain(vm) : Effect.void),
        Effect.as({ result })
      )
    })
  }

  /** A refusal changes nothing: requests of the VM are waited for as before. */
  private waitAgain(vm: HsmVm): Effect.Effect<void> {
    return Effect.promise(async () => {
      const thread = await this.options.waiters.take()
      if (this.vms.get(vm.id) === vm) vm.waiter = this.wait(thread, vm)
      else thread.release()
    })
  }

  private forget(vm: HsmVm): void {
    vm.state = VmState.destroyed
    vm.shownAt?.show(undefined)
    this.vms.delete(vm.id)
    vm.file.close()
    for (const end of vm.atEnd) end()
  }

  /** Ends every VM that is left, at once: also when the process ends, for the driver does not survive that well. */
  readonly endAll = (): ReadonlyArray<Waiter> =>
    [...this.vms.values()].map((vm) => {
      vm.waiter.leave()
      vm.file.request("PauseVm")
      vm.file.request("DestroyVm")
      this.forget(vm)
      return vm.waiter
    })
}

const nameBytes = (name: string): Uint8Array => {
  const bytes = new Uint8Array(NAME_BYTES)
  bytes.set(new TextEncoder().encode(name))
  return bytes
}
