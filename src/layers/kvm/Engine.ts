/**
 * One VM of the hypervisor model on KVM: the kernel's files, the memory map, and the place where its vCPUs run.
 */
import * as Effect from "effect/Effect"
import { type MemoryRegionOp, MemoryRegionOpCode } from "../../domain/abi/MemoryRegionBatch.ts"
import type { Regs } from "../../domain/abi/VcpuRegs.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import { describeResult, Errno } from "../../domain/Errno.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { UpcallHandler } from "../../services/Upcalls.ts"
import type { EngineOptions, VmEngine } from "../model/VmEngine.ts"
import { MpStateCode } from "./abi/VcpuEvents.ts"
import type { DirtyPages } from "./capabilities/DirtyPages.ts"
import { GuestSlots, type HostRun } from "./GuestSlots.ts"
import type { MakePlacement, Placement } from "./Placement.ts"
import type { InitialStates } from "./snapshot/InitialStates.ts"
import { startCounter } from "./VcpuSetup.ts"
import { getMpState, getRegisters, setMpState, setRegisters } from "./vcpuState.ts"
import { slotFlags, type VmFile } from "./VmFile.ts"

export interface EngineHost {
  readonly raise: UpcallHandler
  readonly maxSlots: number
  readonly hasIrqChip: boolean
  /** The memory behind service addresses; `undefined` when some of it is none. */
  readonly hostRuns: (serviceAddress: number, bytes: number) => ReadonlyArray<HostRun> | undefined
  readonly makePlacement: MakePlacement
  /** What reset goes back to. */
  readonly initialStates: InitialStates
  readonly forget: (vmId: number) => void
}

export class Engine implements VmEngine {
  /** A guest on real hardware has real time. */
  readonly time = undefined
  readonly file: VmFile
  readonly slots: GuestSlots
  /** Called once the VM is gone. */
  readonly atEnd = new Set<() => void>()
  /** Gathers what is written, while somebody wants to know. */
  dirtyPages: DirtyPages | undefined
  private readonly vmId: number
  private readonly host: EngineHost
  private readonly onGuestEnd: (reason: EndReason) => void
  private readonly placement: Placement
  private readonly initial = new Map<number, Regs>()
  /** vCPUs that go on from a state that was written whole: START changes nothing of it. */
  private readonly kept = new Set<number>()
  /** Why the VM cannot be started: what the kernel refused when it was reset. */
  private problem: string | undefined
  /** The guest has ended by itself, or the VM is gone. */
  isOver = false
  isRunning = false

  constructor({ onEnd, vmId }: EngineOptions, file: VmFile, host: EngineHost) {
    this.vmId = vmId
    this.file = file
    this.host = host
    this.onGuestEnd = onEnd
    this.slots = new GuestSlots({
      setSlot: (slot, guest, bytes, address, isReadOnly) =>
        file.setSlot(slot, guest, bytes, address, slotFlags(isReadOnly, this.dirtyPages !== undefined)),
      host: host.hostRuns,
      maxSlots: host.maxSlots
    })
    this.placement = host.makePlacement({
      vmId,
      vcpus: file.vcpus,
      raise: host.raise,
      onEnd: (reason) => {
        this.isOver = true
        this.onGuestEnd(reason)
      }
    })
  }

  setRequestPage(page: ServicePage | undefined): void {
    this.placement.setRequestPage(page)
  }

  setRegisters(vcpu: number, registers: Regs): number {
    this.placement.discard(vcpu)
    const file = this.file.vcpus[vcpu]!
    const result = setRegisters(file, registers)
    if (result < 0) return -Errno.EPERM
    // Where it halted is no more.
    if (getMpState(file) === MpStateCode.HALTED) setMpState(file, MpStateCode.RUNNABLE)
    this.initial.set(vcpu, registers)
    this.kept.delete(vcpu)
    return 0
  }

  getRegisters(vcpu: number): Regs | undefined {
    return this.placement.isInside(vcpu) ? undefined : getRegisters(this.file.vcpus[vcpu]!)
  }

  /** Whether a vCPU that does not run stands inside an instruction. */
  isInside(vcpu: number): boolean {
    return this.placement.isInside(vcpu)
  }

  /** The vCPU's whole state was written. */
  keepState(vcpu: number): void {
    // Where it halted is no more.
    this.placement.discard(vcpu)
    this.kept.add(vcpu)
  }

  applyMemory(operation: MemoryRegionOp): number {
    const guest = Number(operation.userVmPa)
    const bytes = Number(operation.size)
    if (operation.type === MemoryRegionOpCode.Add) {
      return this.slots.map(guest, Number(operation.serviceVmPa), bytes, operation.attr)
    }
    const unmap = () => {
      this.dirtyPages?.keep()
      return this.slots.unmap(guest, bytes)
    }
    return this.slots.isSplitBy(guest, bytes) ? this.placement.whileStopped(unmap) : unmap()
  }

  start(vcpus: ReadonlyArray<number>): void {
    const { hasIrqChip } = this.host
    // With local APICs all but vCPU 0 wait to be woken by it, unless they were given registers.
    if (hasIrqChip) this.problem ??= this.makeRunnable(vcpus.filter((vcpu) => !this.kept.has(vcpu)))
    if (this.problem !== undefined) {
      this.isOver = true
      this.onGuestEnd({ _tag: "Fault", message: this.problem })
      return
    }
    for (const vcpu of this.file.vcpus) if (!this.kept.has(vcpu.id)) startCounter(vcpu)
    // A state that was written stands for registers.
    this.placement.start(hasIrqChip ? this.file.vcpus.map(({ id }) => id) : [...new Set([...vcpus, ...this.kept])])
    this.resume()
  }

  private makeRunnable(vcpus: ReadonlyArray<number>): string | undefined {
    for (const vcpu of vcpus) {
      const result = setMpState(this.file.vcpus[vcpu]!, MpStateCode.RUNNABLE)
      if (result < 0) return `KVM did not let vCPU ${vcpu} run: ${describeResult(result)}`
    }
    return undefined
  }

  readonly pause: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(
      this.placement.pause,
      Effect.sync(() => {
        this.isRunning = false
      })
    )
  )

  resume(): void {
    this.isRunning = true
    if (!this.isOver) this.placement.run()
  }

  reset(): void {
    this.isOver = false
    this.placement.abandon()
    this.kept.clear()
    // A VM that is reset has not ended; that it cannot be started is told when it is.
    this.problem = this.restoreInitialState()
  }

  private restoreInitialState(): string | undefined {
    const refusal = this.host.initialStates.restore(this.file)
    if (refusal !== undefined) {
      return `KVM refused the part "${refusal.part}" of the VM's reset: ${describeResult(refusal.result)}`
    }
    for (const [vcpu, registers] of this.initial) {
      const result = setRegisters(this.file.vcpus[vcpu]!, registers)
      if (result < 0) return `KVM refused the registers that vCPU ${vcpu} starts with: ${describeResult(result)}`
    }
    return undefined
  }

  readonly destroy: Effect.Effect<void> = Effect.suspend(() => {
    this.isOver = true
    return Effect.andThen(
      this.placement.close,
      Effect.sync(() => {
        this.file.close()
        this.host.forget(this.vmId)
        for (const end of this.atEnd) end()
      })
    )
  })

  notify(vcpu: number): void {
    this.placement.notify(vcpu)
  }

  setIrq(line: number, high: boolean): void {
    if (!this.host.hasIrqChip) return
    this.file.setLine(line, high)
    if (high) this.placement.wake()
  }

  /** An interrupt may have come that the kernel was given without the engine. */
  wake(): void {
    this.placement.wake()
  }

  /** Has the kernel note from now on which pages are written, or note it no more: 0, or a negative errno. */
  logDirtyPages(pages: DirtyPages | undefined): number {
    this.dirtyPages = pages
    const result = this.slots.retell()
    if (result >= 0 || pages === undefined) return result
    this.logDirtyPages(undefined)
    return result
  }
}
