/**
 * Runs the vCPUs of one simulated VM in turns on the host's event loop: device work first, then instructions up to the
 * next guest timer, then, when every vCPU stands still, time.
 *
 * Guest time is counted in instructions, so that a run depends on nothing but the guest, its devices and the seed. The
 * seed decides how long each vCPU of several runs before the next one does.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scheduler from "effect/Scheduler"
import { type MemoryRegionOp, MemoryRegionOpCode } from "../../domain/abi/MemoryRegionBatch.ts"
import type { Regs } from "../../domain/abi/VcpuRegs.ts"
import { VcpuId } from "../../domain/Address.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import { Errno } from "../../domain/Errno.ts"
import { GuestTimeline } from "../../services/GuestTimeline.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { UpcallHandler } from "../../services/Upcalls.ts"
import { Doorbell } from "../model/Doorbell.ts"
import { seededRandom } from "../model/seededRandom.ts"
import { SlotWriter } from "../model/SlotWriter.ts"
import type { EngineOptions, VmEngine } from "../model/VmEngine.ts"
import { GuestPages, type PageSource } from "./GuestPages.ts"
import { Interpreter } from "./Interpreter.ts"
import { Pic8259 } from "./Pic8259.ts"
import { CannotExecute, Vcpu } from "./Vcpu.ts"

const NANOS_PER_INSTRUCTION = 10
// About a millisecond of the host: timers and other VMs wait no longer than this.
const INSTRUCTIONS_PER_TURN = 20_000
const QUANTUM_OF_MANY = 64
const SHOWN_BYTES = 15

export interface SimulationOptions {
  readonly seed: number
  readonly epochMs: number
  readonly isPolling: boolean
}

interface Core {
  readonly vcpu: Vcpu
  readonly interpreter: Interpreter
  isStarted: boolean
}

type Turn = "More" | "Parked" | "Over"

export class Engine implements VmEngine {
  readonly time: GuestTimeline
  private readonly vcpus: number
  private readonly onEnd: (reason: EndReason) => void
  private readonly options: SimulationOptions
  private readonly pages: GuestPages
  private readonly pic = new Pic8259()
  private readonly doorbell = new Doorbell()
  private readonly cores: Array<Core>
  private readonly launch: (loop: Effect.Effect<void>) => Fiber.Fiber<void>
  private readonly random: () => number
  private fiber: Fiber.Fiber<void> | undefined
  private isOver = false
  private turnStart = 0
  private active: Interpreter | undefined

  constructor(
    { onEnd, vcpus, vmId }: EngineOptions,
    options: SimulationOptions,
    source: PageSource,
    raise: UpcallHandler,
    hostScheduler: Scheduler.Scheduler,
    launch: (loop: Effect.Effect<void>) => Fiber.Fiber<void>
  ) {
    this.vcpus = vcpus
    this.onEnd = onEnd
    this.options = options
    this.launch = launch
    this.random = seededRandom(options.seed)
    this.time = new GuestTimeline(options.epochMs, hostScheduler)
    this.time.onTimer = () => this.doorbell.ring()
    this.pages = new GuestPages(source)
    this.cores = Array.from({ length: vcpus }, (_, id) => {
      const vcpu = new Vcpu(id, this.pages, new SlotWriter(vmId, id, raise, options.isPolling))
      vcpu.picPorts = this.pic
      if (id === 0) vcpu.pic = this.pic
      vcpu.onAccess = () => this.catchUp()
      return { vcpu, interpreter: new Interpreter(vcpu), isStarted: false }
    })
  }

  setRequestPage(page: ServicePage | undefined): void {
    for (const { vcpu } of this.cores) vcpu.requests.setPage(page)
  }

  setRegisters(vcpu: number, registers: Regs): number {
    this.cores[vcpu]!.vcpu.setRegisters(registers)
    return 0
  }

  getRegisters(vcpu: number): Regs {
    return this.cores[vcpu]!.vcpu.getRegisters()
  }

  applyMemory(operation: MemoryRegionOp): number {
    const guestAddress = Number(operation.userVmPa)
    const serviceAddress = Number(operation.serviceVmPa)
    const bytes = Number(operation.size)
    if (operation.type !== MemoryRegionOpCode.Add) {
      // hcall_set_vm_memory_regions takes only what is mapped away, and all of it or nothing.
      if (!this.pages.isMapped(guestAddress, bytes)) return -Errno.EINVAL
      this.pages.unmap(guestAddress, bytes)
    } else {
      // Guard: cve-2024-38610
      if (!this.pages.canMap(serviceAddress, bytes)) return -Errno.EINVAL
      this.pages.map(guestAddress, serviceAddress, bytes, operation.attr)
    }
    for (const { vcpu } of this.cores) vcpu.flush()
    return 0
  }

  start(vcpus: ReadonlyArray<number>): void {
    for (const id of vcpus) this.cores[id]!.isStarted = true
    const bad = this.cores.find(({ isStarted, vcpu }) => isStarted && vcpu.startProblem !== undefined)
    if (bad !== undefined) return this.end({ _tag: "Fault", message: bad.vcpu.startProblem! })
    this.run()
  }

  readonly pause: Effect.Effect<void> = Effect.suspend(() => {
    const fiber = this.fiber
    this.fiber = undefined
    return fiber === undefined ? Effect.void : Fiber.interrupt(fiber)
  })

  resume(): void {
    this.run()
  }

  reset(): void {
    this.isOver = false
    this.pic.reset()
    for (const core of this.cores) {
      core.isStarted = false
      core.vcpu.reset()
    }
  }

  readonly destroy: Effect.Effect<void> = Effect.suspend(() => {
    this.isOver = true
    this.setRequestPage(undefined)
    this.pages.clear()
    for (const { vcpu } of this.cores) vcpu.flush()
    return Effect.tap(this.pause, () => Effect.sync(() => this.time.runOut()))
  })

  notify(vcpu: number): void {
    const requests = this.cores[vcpu]!.vcpu.requests
    if (!requests.isWaiting) return
    requests.isNotified = true
    this.doorbell.ring()
  }

  setIrq(line: number, high: boolean): void {
    this.pic.setLine(line, high)
    if (high) this.doorbell.ring()
  }

  private run(): void {
    if (this.isOver || this.fiber !== undefined) return
    // The first turn comes after the caller's: no hypercall runs a vCPU.
    this.fiber = this.launch(Effect.andThen(Effect.yieldNow, this.loop))
  }

  private readonly loop: Effect.Effect<void> = Effect.suspend(() => {
    const turn = this.turn()
    if (turn === "Over") return Effect.void
    return Effect.flatMap(turn === "Parked" ? this.doorbell.wait : Effect.yieldNow, () => this.loop)
  })

  /** Runs for about a millisecond of the host. */
  private turn(): Turn {
    let budget = INSTRUCTIONS_PER_TURN
    while (budget > 0 && !this.isOver) {
      this.time.drain()
      const executed = this.runCores(budget)
      if (this.isOver) return "Over"
      if (executed > 0) {
        budget -= executed
        continue
      }
      budget -= QUANTUM_OF_MANY
      if (this.time.hasWork) continue
      const idle = this.idle()
      if (idle !== undefined) return idle
    }
    return this.isOver ? "Over" : "More"
  }

  /** Gives each vCPU that can run its share; the sum of instructions executed. */
  private runCores(budget: number): number {
    let sum = 0
    for (const core of this.cores) {
      if (!this.canRun(core)) continue
      const quantum = this.vcpus === 1 ? budget : 1 + (this.random() >>> 0) % QUANTUM_OF_MANY
      sum += this.runCore(core, Math.min(quantum, this.instructionsToNextTimer()))
      if (this.isOver) return sum
    }
    return sum
  }

  private canRun({ isStarted, vcpu }: Core): boolean {
    if (!isStarted) return false
    if (vcpu.requests.isWaiting) return vcpu.takeAnswer()
    return !vcpu.isHalted || (vcpu.isInterruptEnabled && vcpu.pic?.isPending === true)
  }

  private runCore({ interpreter, vcpu }: Core, budget: number): number {
    this.turnStart = this.time.now
    this.active = interpreter
    try {
      interpreter.run(budget)
    } catch (problem) {
      this.fail(interpreter, vcpu, problem)
    }
    this.catchUp()
    this.active = undefined
    // A vCPU that only took an answer or an interrupt did work too.
    return Math.max(1, interpreter.executed)
  }

  /** Brings guest time to where the running vCPU is, so that a device sees the time of its access. */
  private catchUp(): void {
    if (this.active === undefined) return
    this.time.advanceTo(this.turnStart + this.active.executed * NANOS_PER_INSTRUCTION)
  }

  private instructionsToNextTimer(): number {
    const nanos = this.time.nextDeadline - this.time.now
    return nanos === Infinity ? INSTRUCTIONS_PER_TURN : Math.max(1, Math.ceil(nanos / NANOS_PER_INSTRUCTION))
  }

  /** Nothing can run: time passes, or the VM waits, or it is over. `undefined`: look again. */
  private idle(): Turn | undefined {
    const started = this.cores.filter((core) => core.isStarted)
    const isWaiting = started.some(({ vcpu }) => vcpu.requests.isWaiting)
    if (!isWaiting && started.every(({ vcpu }) => vcpu.isHalted && !canWake(vcpu))) {
      this.end({ _tag: "Halted" })
      return "Over"
    }
    const deadline = this.time.nextDeadline
    // What holds a request back, as a pause does, takes no guest time: the guest must not see that it was there.
    const isHeldBack = isWaiting &&
      started.every(({ vcpu }) => vcpu.requests.isWaiting ? vcpu.requests.isUntaken() : !canWake(vcpu))
    if (deadline !== Infinity && !isHeldBack) {
      this.time.advanceTo(deadline)
      return undefined
    }
    // A hypervisor that polls gets no notification, so it has to come back and look.
    return isWaiting && this.options.isPolling ? "More" : "Parked"
  }

  private fail(interpreter: Interpreter, vcpu: Vcpu, problem: unknown): void {
    const id = VcpuId.make(vcpu.id)
    if (!(problem instanceof CannotExecute)) return this.end({ _tag: "Fault", message: String(problem) })
    this.end(
      problem.reason === "Shutdown" ? { _tag: "Shutdown", vcpu: id, cause: problem.cause } : {
        _tag: "UnsupportedInstruction",
        vcpu: id,
        address: vcpu.eip >>> 0,
        bytes: interpreter.bytesAt(vcpu.eip, SHOWN_BYTES)
      }
    )
  }

  private end(reason: EndReason): void {
    this.isOver = true
    this.onEnd(reason)
  }
}

const canWake = (vcpu: Vcpu): boolean => vcpu.isInterruptEnabled && vcpu.pic !== undefined
