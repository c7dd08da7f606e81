/**
 * Runs one VM on the v86 core: slices of about a millisecond, between which the host's event loop gets its turn.
 *
 * Every access of the guest goes through the request page. When its answer is there at once the core just goes on; else
 * the CPU waits inside the instruction (JSPI) while this loop lets guest time pass. A paused VM may stand inside an
 * instruction for as long as it is paused: the answer is kept and given when it runs on.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scheduler from "effect/Scheduler"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import {
  MEMORY_ACCESS_MASK,
  MemoryAccess,
  type MemoryRegionOp,
  MemoryRegionOpCode
} from "../../domain/abi/MemoryRegionBatch.ts"
import type { Regs } from "../../domain/abi/VcpuRegs.ts"
import { VcpuId } from "../../domain/Address.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import { Errno } from "../../domain/Errno.ts"
import { PORT_SPACE_END } from "../../domain/Limits.ts"
import { narrow } from "../../domain/SlotWords.ts"
import type { Backing } from "../../services/AddressSpace.ts"
import { GuestTimeline } from "../../services/GuestTimeline.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { UpcallHandler } from "../../services/Upcalls.ts"
import { Doorbell } from "../model/Doorbell.ts"
import { SlotWriter } from "../model/SlotWriter.ts"
import type { EngineOptions, VmEngine } from "../model/VmEngine.ts"
import * as Cpu from "./Cpu.ts"
import { CpuError } from "./CpuError.ts"
import type { CpuModule } from "./CpuModule.ts"
import { ramBacking } from "./RamBacking.ts"
import { realTime, type TimeSource, virtualTime } from "./TimeSource.ts"

const NANOS_PER_MILLI = 1_000_000
// How far guest time may run ahead in one turn of the host while a handler lets the CPU wait.
const SKIPS_PER_TURN = 64
const COPY_BYTES = 1 << 20
// The host's timers are a millisecond coarse: shorter waits than this are worth spinning for, longer ones are not.
const SPIN_MS = 0.2
// About two milliseconds of the host. Counted, not timed, so that slices of a virtual-time guest end where they always do.
const ACCESSES_PER_SLICE = 4096

export interface EmulationOptions {
  readonly clock: "Virtual" | "Real"
  readonly epochMs: number
  readonly hostMs: () => number
  readonly random: () => number
}

/** What the layer gives each engine. */
export interface EmulationHost {
  readonly module: CpuModule
  readonly raise: UpcallHandler
  readonly scheduler: Scheduler.Scheduler
  readonly launch: (loop: Effect.Effect<void>) => Fiber.Fiber<void>
  /** Whether this backing's region begins at a service address. */
  readonly isRegion: (serviceAddress: number, backing: Backing) => boolean
  readonly forget: (vmId: number) => void
}

/** An access whose answer the CPU waits for inside the instruction. */
interface Suspended {
  readonly size: number
  readonly resolve: (value: number) => void
  /** Ends the wait of a CPU that was disposed of: its stack, and with it its memory, would stay for ever. */
  readonly reject: (cause: unknown) => void
}

export class Engine implements VmEngine {
  readonly time: GuestTimeline
  private readonly vmId: number
  private readonly onEnd: (reason: EndReason) => void
  private readonly options: EmulationOptions
  private readonly host: EmulationHost
  private readonly source: TimeSource
  private readonly requests: SlotWriter
  private readonly doorbell = new Doorbell()
  private cpu: Cpu.Cpu | undefined
  /** Instructions of CPUs that were replaced. */
  private earlierInstructions = 0
  private backing: Backing | undefined
  private isMapped = false
  private registers: Regs | undefined
  private fiber: Fiber.Fiber<void> | undefined
  private suspended: Suspended | undefined
  private slice: "None" | "Running" | Cpu.SliceEnd | { readonly _tag: "Failed"; readonly cause: unknown } = "None"
  private accesses = 0
  private isOver = false
  private isPausing = false

  constructor({ onEnd, vmId }: EngineOptions, options: EmulationOptions, host: EmulationHost) {
    this.vmId = vmId
    this.onEnd = onEnd
    this.options = options
    this.host = host
    this.requests = new SlotWriter(vmId, 0, host.raise, false)
    this.time = new GuestTimeline(options.epochMs, host.scheduler)
    this.time.onTimer = () => this.doorbell.ring()
    this.source = options.clock === "Virtual"
      ? virtualTime(() => this.earlierInstructions + (this.cpu?.instructionCount ?? 0))
      : realTime(options.hostMs)
  }

  /** Makes the CPU with its RAM, which is the VM's only memory. Throws a `CpuError` when there is not that much. */
  makeRam(bytes: number): Backing | undefined {
    if (this.cpu !== undefined) return undefined
    this.cpu = this.makeCpu(bytes)
    this.backing = ramBacking(bytes, () => this.cpu?.memory)
    return this.backing
  }

  setRequestPage(page: ServicePage | undefined): void {
    this.requests.setPage(page)
  }

  setRegisters(_vcpu: number, registers: Regs): number {
    // Registers that come before the RAM are kept until there is a CPU.
    if (this.cpu === undefined) {
      this.registers = registers
      return 0
    }
    try {
      this.cpu.setRegisters(registers)
      this.registers = registers
      return 0
    } catch (problem) {
      if (!(problem instanceof CpuError)) throw problem
      return problem.reason._tag === "NotStopped" ? -Errno.EBUSY : -Errno.EPERM
    }
  }

  getRegisters(): Regs | undefined {
    if (this.cpu === undefined) return this.registers
    return this.cpu.status === "Running" || this.cpu.status === "Disposed" ? undefined : this.cpu.getRegisters()
  }

  /** The one mapping there can be: all of the RAM at guest address 0. */
  applyMemory(operation: MemoryRegionOp): number {
    const isAll = operation.type === MemoryRegionOpCode.Add && operation.userVmPa === 0n &&
      this.backing !== undefined && operation.size === BigInt(this.backing.bytes) &&
      this.host.isRegion(Number(operation.serviceVmPa), this.backing) &&
      (operation.attr & MEMORY_ACCESS_MASK) === MemoryAccess.All
    if (!isAll) return -Errno.EINVAL
    this.isMapped = true
    return 0
  }

  start(): void {
    if (this.cpu === undefined || !this.isMapped) {
      return this.end({
        _tag: "Fault",
        message: "the emulated CPU needs RAM mapped at guest address 0 before it starts"
      })
    }
    this.run()
  }

  readonly pause: Effect.Effect<void> = Effect.suspend(() => {
    const fiber = this.fiber
    if (fiber === undefined) return Effect.void
    this.isPausing = true
    this.cpu?.requestStop()
    this.doorbell.ring()
    return Effect.andThen(
      Fiber.await(fiber),
      Effect.sync(() => {
        this.isPausing = false
        this.source.freeze()
      })
    )
  })

  resume(): void {
    this.run()
  }

  reset(): void {
    this.isOver = false
    this.requests.abandon()
    const cpu = this.cpu
    if (cpu === undefined) return
    if (cpu.status === "Stopped") {
      cpu.reset()
      if (this.registers !== undefined) cpu.setRegisters(this.registers)
    } else {
      this.replaceCpu(cpu)
    }
    this.slice = "None"
  }

  readonly destroy: Effect.Effect<void> = Effect.suspend(() => {
    this.isOver = true
    return Effect.andThen(
      this.pause,
      Effect.sync(() => {
        this.requests.setPage(undefined)
        this.cpu?.dispose()
        this.cpu = undefined
        this.endWait()
        this.host.forget(this.vmId)
        this.time.runOut()
      })
    )
  })

  notify(): void {
    if (!this.requests.isWaiting) return
    this.requests.isNotified = true
    this.doorbell.ring()
  }

  setIrq(line: number, high: boolean): void {
    this.cpu?.setInterruptLine(line, high)
    if (high) this.doorbell.ring()
  }

  private makeCpu(memoryBytes: number): Cpu.Cpu {
    const cpu = Cpu.make(this.host.module, {
      memoryBytes,
      now: () => this.source.nowNs() / NANOS_PER_MILLI,
      random: this.options.random,
      onTimers: () => this.onTimers(),
      onPortRead: (port, size) => this.port(Slot.DirectionCode.Read, port, size, 0),
      onPortWrite: (port, size, value) => this.portWrite(port, size, value),
      onMmioRead: (address, size) => this.access(Slot.RequestTypeCode.Mmio, Slot.DirectionCode.Read, address, size, 0),
      onMmioWrite: (address, size, value) => this.mmioWrite(address, size, value)
    })
    if (this.registers !== undefined) cpu.setRegisters(this.registers)
    return cpu
  }

  /** A CPU that stands inside an instruction, or failed, cannot be reset: another one takes over its RAM. */
  private replaceCpu(old: Cpu.Cpu): void {
    const bytes = old.memory.byteLength
    const made = this.makeCpu(bytes)
    for (let offset = 0; offset < bytes; offset += COPY_BYTES) {
      made.memory.write(offset, old.memory.read(offset, Math.min(COPY_BYTES, bytes - offset)))
    }
    this.earlierInstructions += old.instructionCount
    this.cpu = made
    old.dispose()
    this.endWait()
  }

  /** Lets the stack of a CPU that was disposed of unwind; nothing of the guest runs in it. */
  private endWait(): void {
    this.suspended?.reject(new CpuError({ reason: { _tag: "Disposed" } }))
    this.suspended = undefined
  }

  private run(): void {
    if (this.isOver || this.fiber !== undefined) return
    this.source.thaw()
    this.fiber = this.host.launch(
      Effect.andThen(Effect.yieldNow, this.loop).pipe(
        Effect.ensuring(Effect.sync(() => {
          this.fiber = undefined
        }))
      )
    )
  }

  private readonly loop: Effect.Effect<void> = Effect.suspend(() => {
    if (this.isPausing || this.isOver) return this.stopping()
    this.time.drain()
    this.giveAnswer()
    return Effect.flatMap(this.step(), () => this.loop)
  })

  /** A slice that runs is waited for; one that stands inside an instruction is left there. */
  private stopping(): Effect.Effect<void> {
    if (this.slice !== "Running" || this.suspended !== undefined) return Effect.void
    return Effect.flatMap(this.doorbell.wait, () => this.stopping())
  }

  private step(): Effect.Effect<void> {
    const slice = this.slice
    if (slice === "None") {
      this.beginSlice()
      return this.suspended === undefined ? this.doorbell.wait : Effect.void
    }
    if (slice === "Running") return this.suspended === undefined ? this.doorbell.wait : this.idle()
    switch (slice._tag) {
      case "Preempted":
        this.slice = "None"
        return Effect.yieldNow
      case "Halted":
        this.slice = "None"
        return this.idle()
      case "Dead":
        this.end({ _tag: "Halted" })
        return Effect.void
      case "Failed":
        this.fail(slice.cause)
        return Effect.void
    }
  }

  private beginSlice(): void {
    this.slice = "Running"
    this.accesses = 0
    const cpu = this.cpu!
    const settle = (end: Exclude<Engine["slice"], "None" | "Running">) => {
      // A slice of a CPU that was replaced meanwhile is nobody's business any more.
      if (this.cpu !== cpu) return
      this.slice = end
      this.doorbell.ring()
    }
    cpu.run().then(settle, (cause: unknown) => settle({ _tag: "Failed", cause }))
  }

  /** Gives a waiting CPU its answer; it goes on in a microtask. */
  private giveAnswer(): void {
    const suspended = this.suspended
    if (suspended === undefined || !this.requests.isAnswered()) return
    this.suspended = undefined
    suspended.resolve(narrow(this.requests.take(), suspended.size))
  }

  /** The guest needs nothing from the CPU now: time passes, or something rings. */
  private idle(): Effect.Effect<void> {
    for (let skips = 0; skips < SKIPS_PER_TURN; skips++) {
      this.time.drain()
      if (this.requests.isAnswered()) return Effect.void
      const deadline = this.time.nextDeadline
      if (deadline === Infinity) return this.doorbell.wait
      // What holds a request back, as a pause does, takes no guest time: the guest must not see that it was there.
      if (this.source.isVirtual && this.requests.isUntaken()) return this.doorbell.wait
      if (!this.source.isVirtual) return this.waitUntil(deadline)
      this.passTimeTo(deadline)
      if (this.suspended === undefined) return Effect.void
    }
    return Effect.yieldNow
  }

  private waitUntil(deadline: number): Effect.Effect<void> {
    const waitMs = (deadline - this.source.nowNs()) / NANOS_PER_MILLI
    const wait = waitMs <= 0
      ? Effect.void
      : waitMs < SPIN_MS
      ? Effect.yieldNow
      : Effect.raceFirst(this.doorbell.wait, Effect.sleep(Math.max(1, waitMs)))
    return Effect.andThen(
      wait,
      Effect.suspend(() => {
        const now = this.source.nowNs()
        this.time.advanceTo(now)
        // Timers that come faster than they can be fired must leave the host its turns.
        return this.time.nextDeadline <= now ? Effect.yieldNow : Effect.void
      })
    )
  }

  private passTimeTo(ns: number): void {
    this.source.skipTo(ns)
    this.time.advanceTo(Math.max(ns, this.source.nowNs()))
  }

  /** The core's hook, every 100,003 instructions: devices see time, and the core learns when to come again. */
  private onTimers(): number {
    this.time.advanceTo(this.source.nowNs())
    return Math.max(0, (this.time.nextDeadline - this.source.nowNs()) / NANOS_PER_MILLI)
  }

  private port(direction: number, port: number, size: number, value: number): number | Promise<number> {
    // A port's bytes beyond 0xFFFF do not exist; the page has no room for them.
    if (port + size > PORT_SPACE_END) return narrow(-1, size)
    return this.access(Slot.RequestTypeCode.PortIo, direction, port, size, value)
  }

  private portWrite(port: number, size: number, value: number): void | Promise<void> {
    const answer = this.port(Slot.DirectionCode.Write, port, size, value)
    return typeof answer === "number" ? undefined : answer.then(() => undefined)
  }

  private mmioWrite(address: number, size: number, value: number): void | Promise<void> {
    const answer = this.access(Slot.RequestTypeCode.Mmio, Slot.DirectionCode.Write, address, size, value)
    return typeof answer === "number" ? undefined : answer.then(() => undefined)
  }

  private access(type: number, direction: number, address: number, size: number, value: number) {
    this.time.advanceTo(this.source.nowNs())
    if (++this.accesses === ACCESSES_PER_SLICE) this.cpu?.requestStop()
    if (this.requests.submit(type, direction, address, size, value)) return narrow(this.requests.take(), size)
    // What the handler left to the guest's own scheduler needs no turn of the host.
    this.time.drain()
    if (this.requests.isAnswered()) return narrow(this.requests.take(), size)
    return new Promise<number>((resolve, reject) => {
      this.suspended = { size, resolve, reject }
      this.doorbell.ring()
    })
  }

  private fail(cause: unknown): void {
    if (cause instanceof CpuError && cause.reason._tag === "Shutdown") {
      const words = cause.reason.cause.replaceAll("\n", " ")
      return this.end({
        _tag: "Shutdown",
        vcpu: VcpuId.make(0),
        cause: `a triple fault, or something this CPU core cannot go on from (it says: ${words})`
      })
    }
    this.end({ _tag: "Fault", message: cause instanceof Error ? cause.message : String(cause) })
  }

  private end(reason: EndReason): void {
    this.isOver = true
    this.onEnd(reason)
  }
}
