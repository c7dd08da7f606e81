/**
 * A machine without a vCPU: the test is the guest. Its requests go through a real page and a real dispatcher, its time
 * moves when the test says so, and its interrupt lines write down what devices did.
 */
import { assert } from "@effect/vitest"
import { Clock, Context, Effect, Scheduler, type Scope } from "effect"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import { VmId } from "../../../src/domain/Address.ts"
import type { EndReason } from "../../../src/domain/EndReason.ts"
import { MAX_VCPUS, PAGE_BYTES, SLOT_BYTES } from "../../../src/domain/Limits.ts"
import { AddressSpace, makeServiceMemory, sharedBacking } from "../../../src/services/AddressSpace.ts"
import { Dispatcher } from "../../../src/services/dispatch/Dispatcher.ts"
import * as GuestMemory from "../../../src/services/GuestMemory.ts"
import { GuestTimeline } from "../../../src/services/GuestTimeline.ts"
import { IrqLines } from "../../../src/services/Hypervisor.ts"
import { Machine } from "../../../src/services/Machine.ts"

/** 2026-01-02 03:04:05.250 UTC. */
export const EPOCH_MS = Date.UTC(2026, 0, 2, 3, 4, 5, 250)

/** A change of an interrupt line, and when in guest time, in nanoseconds. */
interface LineChange {
  readonly irq: number
  readonly high: boolean
  readonly at: number
}

/** Interrupt lines that only remember. */
class FakeIrqLines {
  readonly changes: Array<LineChange> = []
  private readonly levels = new Map<number, boolean>()
  private readonly now: () => number

  constructor(now: () => number) {
    this.now = now
  }

  set(irq: number, high: boolean): void {
    if (this.isHigh(irq) === high) assert.fail(`line ${irq} was driven to the level it had`)
    this.levels.set(irq, high)
    this.changes.push({ irq, high, at: this.now() })
  }

  isHigh(irq: number): boolean {
    return this.levels.get(irq) ?? false
  }

  /** Guest times of the rising edges since the last call, in nanoseconds. */
  takeRises(irq: number): Array<number> {
    const rises = this.changes.filter((change) => change.irq === irq && change.high).map((change) => change.at)
    this.changes.length = 0
    return rises
  }
}

export interface FakeMachine {
  readonly machine: Machine["Service"]
  readonly lines: FakeIrqLines
  readonly timeline: GuestTimeline
  readonly dispatcher: Dispatcher
  readonly ends: Array<EndReason>
  /** A guest's IN; fails the test when the device does not answer at once. */
  readonly read: (port: number, size?: number) => number
  /** A guest's OUT. */
  readonly write: (port: number, value: number, size?: number) => void
  readonly mmioRead: (address: number, size: number) => bigint
  readonly mmioWrite: (address: number, value: bigint, size: number) => void
  /** Moves guest time on. */
  readonly advance: (nanos: number) => void
  readonly reset: Effect.Effect<void>
  /** Gives an effect this machine and its lines. */
  readonly provide: <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, Exclude<R, Machine | IrqLines>>
}

const makeMachine = (
  timeline: GuestTimeline,
  options: { readonly vmId?: number; readonly memoryBytes?: number } = {}
): FakeMachine => {
  const { memoryBytes = 64 * 1024 * 1024, vmId = 1 } = options
  const time = { clock: timeline.clock, scheduler: timeline.scheduler }
  const page = sharedBacking(PAGE_BYTES).page(0)
  for (let vcpu = 0; vcpu < MAX_VCPUS; vcpu++) {
    page.store32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Slot.SlotStateCode.Free)
  }
  const dispatcher = new Dispatcher(page, 1, () => 0, time)
  const lines = new FakeIrqLines(() => timeline.now)
  const resets = new Set<Effect.Effect<void>>()
  const ends: Array<EndReason> = []

  const machine = Machine.of({
    vmId: VmId.make(vmId),
    name: `fake${vmId}`,
    vcpus: 1,
    memoryBytes,
    io: dispatcher.service,
    memory: GuestMemory.fromMap(
      new GuestMemory.GuestMemoryMap(),
      makeServiceMemory(new AddressSpace(), () => {
        throw new Error("no memory here")
      })
    ),
    time,
    fork: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.updateContext(
        Effect.forkScoped(effect, { startImmediately: true }),
        (context: Context.Context<R | Scope.Scope>) =>
          context.pipe(Context.add(Clock.Clock, time.clock), Context.add(Scheduler.Scheduler, time.scheduler))
      ),
    onReset: (effect) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          resets.add(effect)
        }),
        () => Effect.sync(() => resets.delete(effect))
      ),
    end: (reason) => Effect.sync(() => void ends.push(reason))
  })

  const access = (type: number, isWrite: boolean, address: number, size: number, value: bigint): bigint => {
    const put = (offset: number, word: number) => page.store32(offset, word | 0)
    put(Slot.SLOT_TYPE_OFFSET, type)
    put(Slot.REQUEST_DIRECTION_OFFSET, isWrite ? Slot.DirectionCode.Write : Slot.DirectionCode.Read)
    put(Slot.REQUEST_ADDRESS_OFFSET, address % 2 ** 32)
    put(Slot.REQUEST_ADDRESS_OFFSET + 4, Math.floor(address / 2 ** 32))
    put(Slot.REQUEST_SIZE_OFFSET, size)
    put(Slot.REQUEST_SIZE_OFFSET + 4, 0)
    put(Slot.REQUEST_VALUE_OFFSET, Number(BigInt.asIntN(32, value)))
    put(Slot.REQUEST_VALUE_OFFSET + 4, Number(BigInt.asIntN(32, value >> 32n)))
    put(Slot.SLOT_STATE_OFFSET, Slot.SlotStateCode.Pending)
    dispatcher.serve(0)
    if (page.load32(Slot.SLOT_STATE_OFFSET) !== Slot.SlotStateCode.Complete) assert.fail("the device did not answer")
    const low = BigInt(page.load32(Slot.REQUEST_VALUE_OFFSET) >>> 0)
    const high = BigInt(page.load32(Slot.REQUEST_VALUE_OFFSET + 4) >>> 0)
    return size === 8 ? high << 32n | low : low
  }

  const irqLines = IrqLines.of({
    set: (vm, irq, high) => {
      if (vm !== vmId) assert.fail(`a device of VM ${vmId} drove a line of VM ${vm}`)
      lines.set(irq, high)
    },
    count: 16
  })

  const services = Context.make(Machine, machine).pipe(Context.add(IrqLines, irqLines))

  return {
    machine,
    lines,
    timeline,
    dispatcher,
    ends,
    read: (port, size = 1) => Number(access(Slot.RequestTypeCode.PortIo, false, port, size, 0n)),
    write: (port, value, size = 1) => void access(Slot.RequestTypeCode.PortIo, true, port, size, BigInt(value)),
    mmioRead: (address, size) => access(Slot.RequestTypeCode.Mmio, false, address, size, 0n),
    mmioWrite: (address, value, size) => void access(Slot.RequestTypeCode.Mmio, true, address, size, value),
    advance: (nanos) => timeline.advanceTo(timeline.now + nanos),
    reset: Effect.suspend(() => Effect.forEach(resets, (effect) => effect, { discard: true })),
    provide: (self) => Effect.provideContext(self, services)
  }
}

/** A machine, its devices to be attached with `provide`. */
export const fakeMachine = (
  options: { readonly vmId?: number; readonly memoryBytes?: number; readonly epochMs?: number } = {}
): Effect.Effect<FakeMachine> =>
  Effect.map(
    Scheduler.Scheduler,
    (host) => makeMachine(new GuestTimeline(options.epochMs ?? EPOCH_MS, host), options)
  )

/** Two machines, each with what `build` makes; for what one layer value gives to each. */
export const twoMachines = Effect.all([fakeMachine({ vmId: 1 }), fakeMachine({ vmId: 2 })])
