/**
 * The vCPUs of a test machine: they execute nothing, the test makes their accesses, and time moves when it says so.
 */
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { Regs } from "../../domain/abi/VcpuRegs.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../../domain/Limits.ts"
import * as SlotWords from "../../domain/SlotWords.ts"
import * as VcpuRegisters from "../../domain/VcpuRegisters.ts"
import type { EngineOptions, VmEngine } from "../../layers/model/VmEngine.ts"
import { GuestTimeline } from "../../services/GuestTimeline.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { UpcallHandler } from "../../services/Upcalls.ts"

/** What a read gave: a u32, of MMIO a u64; nothing for a write. */
export type Answer = number | bigint | undefined

/** A change of a line, and when: guest nanoseconds since the VM was created. */
export interface LineChange {
  readonly line: number
  readonly high: boolean
  readonly at: number
}

interface Waiting {
  readonly request: IoRequest
  readonly onAnswer: (answer: Answer) => void
  readonly onReset: () => void
}

const { Complete, Free, Pending } = Slot.SlotStateCode

export class HandDriven implements VmEngine {
  readonly time: GuestTimeline
  readonly lineChanges: Array<LineChange> = []
  readonly vcpus: number
  private readonly vmId: number
  private readonly raise: UpcallHandler
  private readonly waiting: Array<Waiting | undefined> = Array.from({ length: MAX_VCPUS }, () => undefined)
  private readonly levels = new Set<number>()
  private readonly words = new Int32Array(SlotWords.SLOT_WORDS)
  private registers: ReadonlyArray<Regs>
  private page: ServicePage | undefined

  constructor({ vcpus, vmId }: EngineOptions, epochMs: number, scheduler: Scheduler.Scheduler, raise: UpcallHandler) {
    this.vmId = vmId
    this.vcpus = vcpus
    this.raise = raise
    this.registers = Array.from({ length: vcpus }, () => VcpuRegisters.zero)
    this.time = new GuestTimeline(epochMs, scheduler)
  }

  isWaiting(vcpu: number): boolean {
    return this.waiting[vcpu] !== undefined
  }

  isHigh(line: number): boolean {
    return this.levels.has(line)
  }

  /** Makes an access; a text says why it is none. Work that the device left to guest time's scheduler is done now. */
  submit(waiting: Waiting): string | undefined {
    const page = this.page
    if (page === undefined) return "the VM has no I/O request page any more"
    const { request } = waiting
    encode(request, this.words)
    const problem = SlotWords.decode(this.words, request.vcpu)
    if (typeof problem === "string") return problem
    const base = request.vcpu * SLOT_BYTES
    page.storeRequest(base, this.words)
    this.waiting[request.vcpu] = waiting
    page.store32(base + Slot.SLOT_STATE_OFFSET, Pending)
    this.raise({ vmId: this.vmId, vcpu: request.vcpu })
    this.time.drain()
    return undefined
  }

  notify(vcpu: number): void {
    const page = this.page
    const waiting = this.waiting[vcpu]
    const base = vcpu * SLOT_BYTES
    if (page === undefined || waiting === undefined || page.load32(base + Slot.SLOT_STATE_OFFSET) !== Complete) return
    const low = page.load32(base + Slot.REQUEST_VALUE_OFFSET) >>> 0
    const high = page.load32(base + Slot.REQUEST_VALUE_OFFSET + 4) >>> 0
    this.waiting[vcpu] = undefined
    page.store32(base + Slot.SLOT_STATE_OFFSET, Free)
    waiting.onAnswer(answerOf(waiting.request, low, high))
  }

  setIrq(line: number, high: boolean): void {
    if (this.isHigh(line) === high) return
    if (high) this.levels.add(line)
    else this.levels.delete(line)
    this.lineChanges.push({ line, high, at: this.time.now })
  }

  reset(): void {
    for (let vcpu = 0; vcpu < MAX_VCPUS; vcpu++) {
      const waiting = this.waiting[vcpu]
      this.waiting[vcpu] = undefined
      waiting?.onReset()
    }
  }

  setRequestPage(page: ServicePage | undefined): void {
    this.page = page
  }

  setRegisters(vcpu: number, registers: Regs): number {
    this.registers = this.registers.with(vcpu, registers)
    return 0
  }

  getRegisters(vcpu: number): Regs | undefined {
    return this.registers[vcpu]
  }

  // Nothing here executes, so that mappings, starts and pauses have nothing to act on.
  applyMemory(): number {
    return 0
  }

  start(): void {}

  readonly pause: Effect.Effect<void> = Effect.void

  resume(): void {}

  readonly destroy: Effect.Effect<void> = Effect.sync(() => {
    this.page = undefined
  })
}

const TYPE = Slot.SLOT_TYPE_OFFSET / 4
const DIRECTION = Slot.REQUEST_DIRECTION_OFFSET / 4
const ADDRESS = Slot.REQUEST_ADDRESS_OFFSET / 4
const SIZE = Slot.REQUEST_SIZE_OFFSET / 4
const VALUE = Slot.REQUEST_VALUE_OFFSET / 4

/** What a hypervisor writes for a request: the inverse of `SlotWords.decode`. */
const encode = (request: IoRequest, words: Int32Array): void => {
  words.fill(0)
  const isWrite = "value" in request
  words[DIRECTION] = isWrite ? Slot.DirectionCode.Write : Slot.DirectionCode.Read
  words[SIZE] = request.size
  if (isWrite) {
    const value = BigInt(request.value)
    words[VALUE] = Number(BigInt.asIntN(32, value))
    words[VALUE + 1] = Number(BigInt.asIntN(32, value >> 32n))
  }
  switch (request._tag) {
    case "PortRead":
    case "PortWrite":
      words[TYPE] = Slot.RequestTypeCode.PortIo
      words[ADDRESS] = request.port
      break
    case "MmioRead":
    case "MmioWrite":
      words[TYPE] = Slot.RequestTypeCode.Mmio
      words[ADDRESS] = request.address | 0
      words[ADDRESS + 1] = Math.floor(request.address / 2 ** 32)
      break
    case "PciRead":
    case "PciWrite":
      words[TYPE] = Slot.RequestTypeCode.PciConfig
      words[Slot.REQUEST_PCI_BUS_OFFSET / 4] = request.bus
      words[Slot.REQUEST_PCI_DEVICE_OFFSET / 4] = request.device
      words[Slot.REQUEST_PCI_FUNCTION_OFFSET / 4] = request.function
      words[Slot.REQUEST_PCI_REGISTER_OFFSET / 4] = request.register
      break
  }
}

const answerOf = (request: IoRequest, low: number, high: number): Answer => {
  switch (request._tag) {
    case "PortRead":
    case "PciRead":
      return low
    case "MmioRead":
      return request.size === 8 ? BigInt(high) << 32n | BigInt(low) : BigInt(low)
    default:
      return undefined
  }
}
