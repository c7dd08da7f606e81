/**
 * ACRN's hypervisor as a model: the table of VMs, and for each hypercall the rule by which ACRN accepts it. Simulated
 * and Emulated share it; what runs the vCPUs is a {@link VmEngine}.
 *
 * Each rule names its function in ACRN's `hypervisor/common/hypercall.c`.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { SLOT_STATE_OFFSET, SlotStateCode } from "../../domain/abi/IoRequestSlot.ts"
import { IrqLineOpCode } from "../../domain/abi/IrqLineWord.ts"
import { MemoryRegionOpCode } from "../../domain/abi/MemoryRegionBatch.ts"
import { isPageAligned } from "../../domain/Address.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import { Errno } from "../../domain/Errno.ts"
import type { Hypercall, HypercallOutcome } from "../../domain/Hypercall.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { ADDRESS_SPACE_END, INVALID_VM_ID, MAX_VCPUS, PAGE_BYTES, SLOT_BYTES } from "../../domain/Limits.ts"
import { hypercallRefusal } from "../../domain/VcpuRegisters.ts"
import * as VmState from "../../domain/VmState.ts"
import type { HypercallBackend } from "../../services/HypercallBackend.ts"
import type { GuestTime } from "../../services/Hypervisor.ts"
import type { ServiceMemory, ServicePage } from "../../services/ServiceMemory.ts"
import type { EngineOptions, VmEngine } from "./VmEngine.ts"

const OK: HypercallOutcome = { result: 0 }
const EPERM: HypercallOutcome = { result: -Errno.EPERM }
const EINVAL: HypercallOutcome = { result: -Errno.EINVAL }

interface ModelVm {
  readonly id: number
  readonly vcpus: number
  readonly engine: VmEngine
  readonly prepared: Set<number>
  state: VmState.VmState
  page: ServicePage | undefined
  endHandlers: ReadonlyArray<(reason: EndReason) => void>
  ended: EndReason | undefined
}

export interface ModelOptions {
  readonly profile: HypervisorProfile
  readonly memory: ServiceMemory["Service"]
  /** VMs that can exist at once. */
  readonly maxVms: number
  /** vCPUs of a VM that is created with an empty affinity, which means all that its configuration has. */
  readonly configuredVcpus: number
  /** The engine of a new VM, or the negative errno with which CREATE_VM is refused. */
  readonly makeEngine: (options: EngineOptions) => VmEngine | number
  /** What DESTROY_VM does with a VM that is not paused: refuse it, as ACRN does (default), or stop it and go on. */
  readonly destroyRunning?: "Refuse" | "Stop" | undefined
}

export class HypervisorModel implements HypercallBackend {
  private readonly options: ModelOptions
  private readonly vms = new Map<number, ModelVm>()

  constructor(options: ModelOptions) {
    this.options = options
  }

  readonly execute = (hypercall: Hypercall): Effect.Effect<HypercallOutcome> => {
    switch (hypercall._tag) {
      case "CreateVm":
        return Effect.sync(() => this.createVm(hypercall.creation.cpuAffinity))
      case "DestroyVm":
        return this.withVm(hypercall.vmId, (vm) => this.destroyVm(vm))
      case "StartVm":
        return this.withVm(hypercall.vmId, (vm) => this.startVm(vm))
      case "PauseVm":
        return this.withVm(hypercall.vmId, (vm) => this.pauseVm(vm))
      case "ResetVm":
        return this.withVm(hypercall.vmId, (vm) => this.resetVm(vm))
      case "SetVcpuRegs":
        return this.withVm(hypercall.vmId, (vm) => Effect.succeed(this.setVcpuRegs(vm, hypercall)))
      case "SetIoRequestBuffer":
        return this.withVm(hypercall.vmId, (vm) => Effect.succeed(this.setIoRequestBuffer(vm, hypercall.page)))
      case "NotifyRequestFinish":
        return Effect.sync(() => ({ result: this.notifyFinish(hypercall.vmId, hypercall.vcpuId) }))
      case "SetMemoryRegions":
        return this.withVm(hypercall.vmId, (vm) => Effect.succeed(this.setMemoryRegions(vm, hypercall)))
      case "SetIrqLine":
        return this.withVm(hypercall.vmId, (vm) => Effect.succeed(this.setIrqLine(vm, hypercall)))
    }
  }

  /** hcall_notify_ioreq_finish: cuts both ids to 16 bits, and wakes the vCPU even if its slot is not COMPLETE. */
  readonly notifyFinish = (vmId: number, vcpu: number): number => {
    const vm = this.vms.get(vmId & 0xffff)
    if (vm === undefined) return this.noVm(vmId & 0xffff)
    const index = vcpu & 0xffff
    // Guard: acrn-36f6a412b
    if (vm.page === undefined || index >= vm.vcpus) return -Errno.EPERM
    vm.engine.notify(index)
    return 0
  }

  /** Running a paused VM on; ACRN has no such hypercall. */
  readonly resume = (vmId: number): Effect.Effect<number> =>
    Effect.sync(() => {
      const vm = this.vms.get(vmId)
      if (vm === undefined) return this.noVm(vmId)
      const next = VmState.target(vm.state, "Resume")
      if (next === undefined) return -Errno.EPERM
      vm.state = next
      vm.engine.resume()
      return 0
    })

  readonly setIrq = (vmId: number, line: number, high: boolean): void => {
    if (isIndex(line, IRQ_LINES)) this.vms.get(vmId)?.engine.setIrq(line, high)
  }

  readonly readRegisters = (vmId: number, vcpu: number) =>
    Effect.sync(() => {
      const vm = this.vms.get(vmId)
      if (vm === undefined || !isIndex(vcpu, vm.vcpus) || vm.state._tag === "Running") return undefined
      return vm.engine.getRegisters(vcpu)
    })

  readonly timeOf = (vmId: number): GuestTime | undefined => this.vms.get(vmId)?.engine.time

  readonly onEnd = (vmId: number, handler: (reason: EndReason) => void): () => void => {
    const vm = this.vms.get(vmId)
    if (vm === undefined) return () => undefined
    vm.endHandlers = [...vm.endHandlers, handler]
    if (vm.ended !== undefined) handler(vm.ended)
    return () => {
      vm.endHandlers = vm.endHandlers.filter((other) => other !== handler)
    }
  }

  /** Stops every VM that is left: the layer goes. */
  readonly shutdown: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.vms.values()], (vm) => Effect.andThen(vm.engine.pause, vm.engine.destroy), {
      discard: true
    })
  )

  private withVm(
    vmId: number,
    f: (vm: ModelVm) => Effect.Effect<HypercallOutcome>
  ): Effect.Effect<HypercallOutcome> {
    return Effect.suspend(() => {
      const vm = this.vms.get(vmId)
      return vm === undefined ? Effect.succeed({ result: this.noVm(vmId) }) : f(vm)
    })
  }

  /**
   * dispatch_hypercall: an id that no VM can have is -ENOTTY; a VM that could be there is powered off, and every
   * hypercall refuses that. Id 0, the Service VM's own, is refused like the latter.
   */
  private noVm(vmId: number): number {
    return vmId > this.options.maxVms ? -Errno.ENOTTY : -Errno.EPERM
  }

  /** hcall_create_vm */
  private createVm(cpuAffinity: bigint): HypercallOutcome {
    const { configuredVcpus, makeEngine, maxVms, profile } = this.options
    const vcpus = cpuAffinity === 0n ? configuredVcpus : countBits(cpuAffinity)
    if (cpuAffinity >> BigInt(MAX_VCPUS) !== 0n || vcpus > profile.maxVcpus) return EPERM
    const id = this.freeId(maxVms)
    if (id === undefined) return { result: 0, created: { vmId: INVALID_VM_ID, vcpuNum: 0 } }
    const onEnd = (reason: EndReason) => {
      if (vm.ended !== undefined) return
      vm.ended = reason
      for (const handler of vm.endHandlers) handler(reason)
    }
    const engine = makeEngine({ vmId: id, vcpus, onEnd })
    if (typeof engine === "number") return { result: engine }
    const vm: ModelVm = {
      id,
      vcpus,
      engine,
      prepared: new Set(),
      state: VmState.created,
      page: undefined,
      endHandlers: [],
      ended: undefined
    }
    this.vms.set(id, vm)
    return { result: 0, created: { vmId: id, vcpuNum: vcpus } }
  }

  private freeId(maxVms: number): number | undefined {
    // Id 0 is the Service VM's own.
    for (let id = 1; id <= maxVms; id++) {
      if (!this.vms.has(id)) return id
    }
    return undefined
  }

  /** hcall_destroy_vm: a Paused VM only, but for layers that were told otherwise. */
  private destroyVm(vm: ModelVm): Effect.Effect<HypercallOutcome> {
    const isLegal = VmState.target(vm.state, "Destroy") !== undefined
    if (!isLegal && this.options.destroyRunning !== "Stop") return Effect.succeed(EPERM)
    vm.state = VmState.destroyed
    this.vms.delete(vm.id)
    return Effect.as(vm.engine.destroy, OK)
  }

  /** hcall_start_vm: a Created VM whose I/O request page is set. */
  private startVm(vm: ModelVm): Effect.Effect<HypercallOutcome> {
    const next = VmState.target(vm.state, "Start")
    if (next === undefined || vm.page === undefined) return Effect.succeed(EPERM)
    vm.state = next
    // ACRN starts vCPU 0 alone; starting those that were given registers is our declared deviation.
    const started = this.options.profile.startsAllVcpus
      ? [...new Set([0, ...vm.prepared])].toSorted((a, b) => a - b)
      : [0]
    vm.engine.start(started)
    return Effect.succeed(OK)
  }

  /** hcall_pause_vm: any state; pausing a paused VM succeeds. */
  private pauseVm(vm: ModelVm): Effect.Effect<HypercallOutcome> {
    const wasRunning = vm.state._tag === "Running"
    vm.state = VmState.target(vm.state, "Pause") ?? vm.state
    return wasRunning ? Effect.as(vm.engine.pause, OK) : Effect.succeed(OK)
  }

  /** hcall_reset_vm: a Paused VM only; every slot is FREE after it, the page stays. */
  private resetVm(vm: ModelVm): Effect.Effect<HypercallOutcome> {
    const next = VmState.target(vm.state, "Reset")
    if (next === undefined) return Effect.succeed(EPERM)
    vm.state = next
    vm.ended = undefined
    vm.engine.reset()
    if (vm.page !== undefined) freeAllSlots(vm.page)
    return Effect.succeed(OK)
  }

  /** hcall_set_vcpu_regs: not a Running VM; CR0 and CR4 must be legal. */
  private setVcpuRegs(vm: ModelVm, call: Extract<Hypercall, { readonly _tag: "SetVcpuRegs" }>): HypercallOutcome {
    // Guard: acrn-36f6a412b
    if (vm.state._tag === "Running" || call.vcpuId >= vm.vcpus) return EPERM
    if (hypercallRefusal(call.registers) !== undefined) return EPERM
    const result = vm.engine.setRegisters(call.vcpuId, call.registers)
    if (result === 0) vm.prepared.add(call.vcpuId)
    return { result }
  }

  /** hcall_set_ioreq_buffer: a Created VM; a bad address takes the old page away. */
  private setIoRequestBuffer(vm: ModelVm, address: bigint): HypercallOutcome {
    // Guard: cve-2026-5747
    if (vm.state._tag !== "Created") return EPERM
    const page = address < BigInt(ADDRESS_SPACE_END)
      ? Result.getOrElse(this.options.memory.page(Number(address)), () => undefined)
      : undefined
    vm.page = page
    if (page !== undefined) freeAllSlots(page)
    vm.engine.setRequestPage(page)
    return page === undefined ? EPERM : OK
  }

  /** hcall_set_vm_memory_regions: in order, up to the first that is refused. */
  private setMemoryRegions(
    vm: ModelVm,
    { operations }: Extract<Hypercall, { readonly _tag: "SetMemoryRegions" }>
  ): HypercallOutcome {
    if (operations.length === 0) return EPERM
    const guestEnd = 2 ** this.options.profile.addressBits
    let run: MemoryRun | undefined
    for (const { attr, serviceVmPa, size, type, userVmPa } of operations) {
      const guest = pageUp(userVmPa)
      // Where a deletion says that service memory is means nothing.
      const service = type === MemoryRegionOpCode.Add ? pageUp(serviceVmPa) : 0
      const bytes = Number(size)
      const isSane = isPageAligned(bytes) && guest + bytes <= guestEnd && service + bytes <= ADDRESS_SPACE_END
      if (isSane && run !== undefined && continues(run, type, attr, guest, service)) {
        run.sizes.push(bytes)
        run.bytes += bytes
        continue
      }
      const result = run === undefined ? 0 : applyRun(vm.engine, run)
      if (result < 0) return { result }
      if (!isSane) return EINVAL
      run = { type, attr, guest, service, sizes: [bytes], bytes }
    }
    return { result: applyRun(vm.engine, run!) }
  }

  /** hcall_set_irqline: a line that there is; an operation that is none does nothing, and succeeds. */
  private setIrqLine(vm: ModelVm, { gsi, op }: Extract<Hypercall, { readonly _tag: "SetIrqLine" }>): HypercallOutcome {
    if (gsi >= IRQ_LINES) return EPERM
    const line = gsi === TIMER_GSI ? 0 : gsi
    for (const high of LEVELS.get(op) ?? []) vm.engine.setIrq(line, high)
    return OK
  }
}

// The timer is wired to pin 2 of an I/O APIC, whose numbers GSIs are, but to pin 0 of the interrupt controllers here.
const TIMER_GSI = 2

const LEVELS: ReadonlyMap<number, ReadonlyArray<boolean>> = new Map([
  [IrqLineOpCode.High, [true]],
  [IrqLineOpCode.Low, [false]],
  [IrqLineOpCode.RisingPulse, [true, false]],
  [IrqLineOpCode.FallingPulse, [false, true]]
])

/** Lines of the PC's pair of interrupt controllers. */
export const IRQ_LINES = 16

const isIndex = (value: number, count: number): boolean => Number.isInteger(value) && value >= 0 && value < count

const freeAllSlots = (page: ServicePage): void => {
  for (let slot = 0; slot < MAX_VCPUS; slot++) page.store32(slot * SLOT_BYTES + SLOT_STATE_OFFSET, SlotStateCode.Free)
}

/** Operations that follow each other in a batch and in memory, as one: an engine takes runs, not thousands of pages. */
interface MemoryRun {
  readonly type: number
  readonly attr: number
  readonly guest: number
  readonly service: number
  readonly sizes: Array<number>
  bytes: number
}

// set_vm_memory_region checks no alignment but the size's; pagetable.c rounds both addresses up to a page.
const pageUp = (address: bigint): number => Math.ceil(Number(address) / PAGE_BYTES) * PAGE_BYTES

const continues = (run: MemoryRun, type: number, attr: number, guest: number, service: number): boolean =>
  run.type === type && run.attr === attr && run.guest + run.bytes === guest &&
  (type !== MemoryRegionOpCode.Add || run.service + run.bytes === service)

/** Applies a run; one that is refused as a whole up to the operation in it that is. */
const applyRun = (engine: VmEngine, { attr, bytes, guest, service, sizes, type }: MemoryRun): number => {
  const apply = (offset: number, size: number): number =>
    engine.applyMemory({
      type,
      attr,
      userVmPa: BigInt(guest + offset),
      serviceVmPa: BigInt(service + offset),
      size: BigInt(size)
    })
  const result = apply(0, bytes)
  if (result >= 0 || sizes.length === 1) return result
  let offset = 0
  for (const size of sizes) {
    const single = apply(offset, size)
    if (single < 0) return single
    offset += size
  }
  return 0
}

const countBits = (bits: bigint): number => {
  let count = 0
  for (let rest = bits; rest !== 0n; rest >>= 1n) count += Number(rest & 1n)
  return count
}
