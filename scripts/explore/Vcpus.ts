/**
 * vCPUs that execute nothing but a list of port reads, each in two acts that the explorer places in time: storing the
 * request, and taking its answer. Between acts they are data, so that the hypervisor may also act in the middle of what
 * the services do, as one on another thread does.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import type { Regs } from "../../src/domain/abi/VcpuRegs.ts"
import { hex } from "../../src/domain/Address.ts"
import { SLOT_BYTES } from "../../src/domain/Limits.ts"
import { SLOT_WORDS } from "../../src/domain/SlotWords.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import type { EngineOptions, VmEngine } from "../../src/layers/model/VmEngine.ts"
import type { ServicePage } from "../../src/services/ServiceMemory.ts"
import type { UpcallHint } from "../../src/services/Upcalls.ts"
import type { Exploration } from "../../src/testing/Explorer.ts"

/** One port read of a vCPU: what became of it, and how it ended. */
export interface Access {
  readonly vcpu: number
  readonly port: number
  /** How often the VM had been reset when it was made. */
  readonly life: number
  readonly isPolled: boolean
  /** The client that it was given to, by its name. */
  dispatchedTo: string | undefined
  completions: number
  /** What its client answered, once it did. */
  given: number | undefined
  end: "Answered" | "Dropped" | "Gone" | undefined
}

export interface VcpusOptions {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  readonly exploration: Exploration
  /** The ports that each vCPU reads, in order. */
  readonly programs: ReadonlyArray<ReadonlyArray<number>>
  readonly isPolled: (port: number) => boolean
  readonly raise: (hint: UpcallHint) => void
  readonly accesses: Array<Access>
  readonly onAnswer: (access: Access, life: number, value: number) => void
  /** Whether stopping the vCPUs is a step of its own, before which they may still act. */
  readonly pauseTakesTime: boolean
  /** Whether a vCPU may go on in the stack of who notifies it. */
  readonly runsOnNotify: boolean
}

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode
const stateOf = (vcpu: number): number => vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET

export class Vcpus implements VmEngine {
  readonly time: VmEngine["time"]
  isGone = false
  isRunning = false
  private life = 0
  private readonly vmId: number
  private readonly options: VcpusOptions
  private readonly next: Array<number>
  private readonly waiting: Array<Access | undefined>
  private readonly notified: Array<boolean>
  private page: ServicePage | undefined

  constructor({ vmId }: EngineOptions, options: VcpusOptions) {
    this.vmId = vmId
    this.options = options
    this.time = options
    this.next = options.programs.map(() => 0)
    this.waiting = options.programs.map(() => undefined)
    this.notified = options.programs.map(() => false)
  }

  /** The vCPUs that have an act to do now. */
  get able(): ReadonlyArray<number> {
    return this.options.programs.flatMap((_, vcpu) => this.canAct(vcpu) ? [vcpu] : [])
  }

  /** The vCPUs whose slots a service holds, for who looks at the page. */
  get processing(): ReadonlyArray<number> {
    return this.options.programs.flatMap((_, vcpu) => this.page?.load32(stateOf(vcpu)) === Processing ? [vcpu] : [])
  }

  /** Every vCPU is through with its program, or there are none any more. */
  get isDone(): boolean {
    return this.isGone ||
      this.options.programs.every((ports, vcpu) => this.waiting[vcpu] === undefined && this.next[vcpu] === ports.length)
  }

  canAct(vcpu: number): boolean {
    const { page } = this
    if (!this.isRunning || page === undefined) return false
    const waiting = this.waiting[vcpu]
    if (waiting === undefined) return this.next[vcpu]! < this.options.programs[vcpu]!.length
    return (waiting.isPolled || this.notified[vcpu]!) && page.load32(stateOf(vcpu)) === Complete
  }

  /** What {@link act} would do, in words. */
  nameAct(vcpu: number): string {
    const waiting = this.waiting[vcpu]
    if (waiting !== undefined) return `vCPU ${vcpu} takes the answer of port ${hex(waiting.port)}`
    const port = this.options.programs[vcpu]![this.next[vcpu]!]
    return port === undefined ? `vCPU ${vcpu} is through` : `vCPU ${vcpu} reads port ${hex(port)}`
  }

  act(vcpu: number): void {
    const waiting = this.waiting[vcpu]
    if (waiting === undefined) this.submit(vcpu)
    else this.take(vcpu, waiting)
  }

  private submit(vcpu: number): void {
    const page = this.page!
    const port = this.options.programs[vcpu]![this.next[vcpu]!]!
    this.next[vcpu] = this.next[vcpu]! + 1
    const isPolled = this.options.isPolled(port)
    const access: Access = {
      vcpu,
      port,
      life: this.life,
      isPolled,
      dispatchedTo: undefined,
      completions: 0,
      given: undefined,
      end: undefined
    }
    this.options.accesses.push(access)
    this.waiting[vcpu] = access
    this.notified[vcpu] = false
    const words = new Int32Array(SLOT_WORDS)
    words[Slot.SLOT_TYPE_OFFSET / 4] = Slot.RequestTypeCode.PortIo
    words[Slot.SLOT_COMPLETION_POLLING_OFFSET / 4] = isPolled ? 1 : 0
    words[Slot.REQUEST_DIRECTION_OFFSET / 4] = Slot.DirectionCode.Read
    words[Slot.REQUEST_ADDRESS_OFFSET / 4] = port
    words[Slot.REQUEST_SIZE_OFFSET / 4] = 4
    page.storeRequest(vcpu * SLOT_BYTES, words)
    page.store32(stateOf(vcpu), Pending)
    this.options.raise({ vmId: this.vmId, vcpu })
  }

  private take(vcpu: number, access: Access): void {
    const page = this.page!
    const value = page.load32(vcpu * SLOT_BYTES + Slot.REQUEST_VALUE_OFFSET) >>> 0
    this.waiting[vcpu] = undefined
    page.store32(stateOf(vcpu), Free)
    access.end = "Answered"
    this.options.onAnswer(access, this.life, value)
  }

  notify(vcpu: number): void {
    const access = this.waiting[vcpu]
    if (
      access === undefined || access.isPolled || this.notified[vcpu] || this.page?.load32(stateOf(vcpu)) !== Complete
    ) {
      this.options.exploration.violate(`law 3: a notification for vCPU ${vcpu}, which has no completed request`)
    }
    this.notified[vcpu] = true
    while (this.options.runsOnNotify && this.canAct(vcpu)) {
      if (this.options.exploration.choose(["", `${this.nameAct(vcpu)} as it is notified`]) === 0) return
      this.act(vcpu)
    }
  }

  start(): void {
    this.isRunning = true
  }

  readonly pause: Effect.Effect<void> = Effect.suspend(() => {
    const stop = Effect.sync(() => {
      this.isRunning = false
    })
    const { exploration, pauseTakesTime } = this.options
    return pauseTakesTime ? Effect.andThen(exploration.step("the hypervisor stops the vCPUs", () => true), stop) : stop
  })

  resume(): void {
    this.isRunning = true
  }

  reset(): void {
    this.life++
    for (const [vcpu, access] of this.waiting.entries()) {
      if (access === undefined) continue
      this.waiting[vcpu] = undefined
      access.end = "Dropped"
    }
  }

  readonly destroy: Effect.Effect<void> = Effect.sync(() => {
    this.isRunning = false
    this.isGone = true
    this.page = undefined
    for (const access of this.options.accesses) access.end ??= "Gone"
  })

  setRequestPage(page: ServicePage | undefined): void {
    this.page = page
  }

  setRegisters(): number {
    return 0
  }

  getRegisters(): Regs {
    return VcpuRegisters.zero
  }

  applyMemory(): number {
    return 0
  }

  setIrq(): void {}
}
