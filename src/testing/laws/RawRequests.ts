/**
 * Law 6, with the law as the hypervisor: slots with any words at all, upcalls for slots that there are not, ranges that
 * are none. The oracle reads the words as wide as they are, in arithmetic that cannot wrap.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import { type GuestAddress, hex, type Port, type VcpuId } from "../../domain/Address.ts"
import type { DispatchEvent } from "../../domain/DispatchEvent.ts"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../../domain/Limits.ts"
import type { CreatedVm } from "../../services/Vm.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import * as Trace from "../Trace.ts"
import { noPageByHand } from "./aboveModule.ts"
import * as NearbyRequests from "./NearbyRequests.ts"
import { difference, slotBytes } from "./PageByHand.ts"
import * as Reference from "./Reference.ts"
import * as VmByHand from "./VmByHand.ts"
import * as World from "./World.ts"

const { Complete, Pending, Processing } = Slot.SlotStateCode
const LITTLE_ENDIAN = true

/** Fields of a slot by offset and width, as `<linux/acrn.h>` has them; PCI's begin inside the value. */
const FIELDS = {
  type: [0, 4],
  polling: [4, 4],
  direction: [64, 4],
  address: [72, 8],
  size: [80, 8],
  value: [88, 4],
  bus: [92, 4],
  device: [96, 4],
  function: [100, 4],
  register: [104, 4]
} as const
type Field = keyof typeof FIELDS

const readField = (slot: DataView, field: Field): bigint => {
  const [offset, width] = FIELDS[field]
  return width === 8 ? slot.getBigUint64(offset, LITTLE_ENDIAN) : BigInt(slot.getUint32(offset, LITTLE_ENDIAN))
}

const writeField = (slot: DataView, field: Field, value: bigint): void => {
  const [offset, width] = FIELDS[field]
  if (width === 8) slot.setBigUint64(offset, BigInt.asUintN(64, value), LITTLE_ENDIAN)
  else slot.setUint32(offset, Number(BigInt.asUintN(32, value)), LITTLE_ENDIAN)
}

/** The request that a slot's words are, if they are one. */
const requestIn = (slot: DataView, vcpu: VcpuId): IoRequest | undefined => {
  const read = (field: Field) => readField(slot, field)
  const [type, direction, size] = [read("type"), read("direction"), read("size")]
  if (direction > 1n || ![1n, 2n, 4n, 8n].includes(size)) return undefined
  const isWrite = direction === 1n
  const value = (bytes: bigint) => BigInt.asUintN(Number(8n * bytes), read("bus") << 32n | read("value"))
  const last = read("address") + size - 1n
  if (type === 0n) {
    if (size === 8n || last > 0xffffn) return undefined
    const at = { vcpu, port: Number(read("address")) as Port, size: Number(size) as 1 | 2 | 4 }
    return isWrite ? { _tag: "PortWrite", ...at, value: Number(value(size)) } : { _tag: "PortRead", ...at }
  }
  if (type === 1n || type === 3n) {
    if (last >= 2n ** 52n) return undefined
    const at = { vcpu, address: Number(read("address")) as GuestAddress, size: Number(size) as 1 | 2 | 4 | 8 }
    return isWrite ? { _tag: "MmioWrite", ...at, value: value(size) } : { _tag: "MmioRead", ...at }
  }
  const [bus, device, fn, register] = [read("bus"), read("device"), read("function"), read("register")]
  const isFunction = bus < 256n && device < 32n && fn < 8n
  if (type !== 2n || size === 8n || !isFunction || register >= 4096n || register % 4n + size > 4n) return undefined
  const at = {
    vcpu,
    bus: Number(bus),
    device: Number(device),
    function: Number(fn),
    register: Number(register),
    size: Number(size) as 1 | 2 | 4
  }
  return isWrite
    ? { _tag: "PciWrite", ...at, value: Number(read("value")) % 2 ** (8 * at.size) }
    : { _tag: "PciRead", ...at }
}

/** `raw` is a whole slot; `Look` is an upcall, for any number in place of a slot's. */
type Step =
  | { readonly _tag: "Fill"; readonly slot: number; readonly raw: Uint8Array }
  | { readonly _tag: "Look"; readonly slot: number | undefined }

interface Case {
  readonly world: World.World
  readonly vcpus: number
  readonly badRanges: ReadonlyArray<IoRange.IoRange>
  readonly steps: ReadonlyArray<Step>
}

/** What the page and the VM must show. */
class Model {
  readonly page: Uint8Array
  readonly served: Array<Reference.Served> = []
  readonly malformed: Array<number> = []
  readonly notified: Array<number> = []
  private readonly pending = new Set<number>()
  private readonly dispatcher: Reference.Dispatcher
  private readonly vcpus: number

  constructor(page: Uint8Array, world: World.World, vcpus: number) {
    this.page = page
    this.dispatcher = new Reference.Dispatcher(world)
    this.vcpus = vcpus
  }

  isWaiting(slot: number): boolean {
    return this.pending.has(slot)
  }

  fill(slot: number, raw: Uint8Array): void {
    this.page.set(raw, slot * SLOT_BYTES)
    this.pending.add(slot)
  }

  look(slot: number | undefined): void {
    for (let each = 0; each < this.vcpus; each++) {
      if ((slot === undefined || slot === each) && this.pending.delete(each)) this.serve(each)
    }
  }

  private serve(slot: number): void {
    const view = new DataView(this.page.buffer, slot * SLOT_BYTES, SLOT_BYTES)
    const isPolled = readField(view, "polling") !== 0n
    const request = requestIn(view, slot as VcpuId)
    if (request === undefined) {
      this.malformed.push(slot)
      view.setBigUint64(FIELDS.value[0], 2n ** 64n - 1n, LITTLE_ENDIAN)
    } else {
      const served = this.dispatcher.serve(request)
      this.served.push(served)
      const { answer } = served
      if (answer !== undefined) view.setUint32(FIELDS.value[0], Number(BigInt(answer) % 2n ** 32n), LITTLE_ENDIAN)
      // The word above the value is the bus of a PCI request: only 8-byte reads own it.
      if (answer !== undefined && request.size === 8) {
        view.setUint32(FIELDS.value[0] + 4, Number(BigInt(answer) >> 32n), LITTLE_ENDIAN)
      }
    }
    view.setInt32(Slot.SLOT_STATE_OFFSET, Complete, LITTLE_ENDIAN)
    if (!isPolled) this.notified.push(slot)
  }
}

const sorted = (numbers: ReadonlyArray<number>): string => numbers.toSorted((a, b) => a - b).join()

const MAX_TURNS = 100

/** Each bad range is refused as one, whichever way it is asked for. */
const refuseAll = (vm: CreatedVm, ranges: ReadonlyArray<IoRange.IoRange>) =>
  Effect.gen(function*() {
    const register = (name: string, owned: ReadonlyArray<IoRange.IoRange>) =>
      vm.attach(vm.io.register({ name, ranges: owned, handle: () => Effect.die("a range that is none was served") }))
    const homeless = yield* register("homeless", [])
    for (const range of ranges) {
      const attempts = [register("late", [range]), homeless.addRange(range)]
      for (const attempt of attempts) {
        const result = yield* Effect.result(attempt)
        if (Result.isSuccess(result)) return yield* Law.broken(`it owns ${showRange(range)}, which is no range`)
        if (result.failure.reason._tag !== "BadRange") {
          return yield* Law.broken(`${showRange(range)} is no range but was refused as: ${result.failure.message}`)
        }
      }
    }
  })

const holds = ({ badRanges, steps, vcpus, world }: Case) =>
  Effect.gen(function*() {
    const { notified, page, raise, vm } = yield* VmByHand.make({ vcpus })
    const asked = yield* vm.attach(World.install(vm, world))
    yield* refuseAll(vm, badRanges)
    const recording = yield* Trace.record(vm)
    const model = new Model(page.bytes(), world, vcpus)
    const isBusy = () => Array.from({ length: vcpus }, (_, slot) => page.state(slot)).includes(Processing)
    for (const [index, step] of steps.entries()) {
      if (step._tag === "Fill") {
        // A guest that waits asks nothing else.
        if (model.isWaiting(step.slot)) continue
        model.fill(step.slot, step.raw)
        page.fill(step.slot, step.raw)
      } else {
        model.look(step.slot)
        raise(step.slot)
        for (let turn = 0; turn < MAX_TURNS && isBusy(); turn++) yield* Effect.yieldNow
        const problem = problemOfSlots(model, vcpus, (yield* recording.trace).entries, yield* vm.io.recentEvents)
        if (problem !== undefined) return yield* Law.broken(`after step ${index + 1}: ${problem}`)
      }
      const onPage = difference(page.bytes(), model.page)
      if (onPage !== undefined) return yield* Law.broken(`after step ${index + 1}: ${onPage}`)
    }
    const handled = model.served.filter(({ client }) => !client.startsWith("("))
    if (asked.length !== handled.length) {
      return yield* Law.broken(`handlers must be asked ${handled.length} times, and were ${asked.length} times`)
    }
    if (sorted(notified) !== sorted(model.notified)) {
      return yield* Law.broken(`vCPUs [${sorted(model.notified)}] must be notified, and [${sorted(notified)}] were`)
    }
  })

/** Why the requests that were served, and the slots that were refused, are not those that must be. */
const problemOfSlots = (
  model: Model,
  vcpus: number,
  entries: ReadonlyArray<Trace.TraceEntry>,
  events: ReadonlyArray<DispatchEvent>
): string | undefined => {
  for (const [slot, served] of Reference.servedIn(entries, vcpus).entries()) {
    const must = model.served.filter(({ request }) => request.vcpu === slot)
    const problem = Reference.firstDifference(must, served)
    if (problem !== undefined) return `slot ${slot}: ${problem}`
  }
  const reported = events.flatMap((event) => event._tag === "Malformed" ? [event.vcpu] : [])
  return reported.join() === model.malformed.join()
    ? undefined
    : `slots [${model.malformed.join()}] must be reported as malformed, and [${reported.join()}] were`
}

// What a field may be made of in place of what it should be: too big, negative, near a limit, right once it is cut.
const WILD: Readonly<Record<Field, ReadonlyArray<bigint>>> = {
  type: [3n, 4n, 0x100n, 2n ** 31n, 2n ** 32n - 1n],
  polling: [1n, 2n, 2n ** 31n],
  direction: [2n, 3n, 256n, 2n ** 31n, 2n ** 32n - 1n],
  address: [
    0xfffdn,
    0xffffn,
    0x1_0000n,
    0x1_0300n,
    2n ** 32n - 1n,
    2n ** 32n + 0x300n,
    2n ** 48n,
    2n ** 52n - 8n,
    2n ** 52n - 1n,
    2n ** 52n,
    2n ** 53n + 1n,
    2n ** 63n,
    2n ** 63n + 0x300n,
    2n ** 64n - 4n,
    2n ** 64n - 1n
  ],
  size: [0n, 3n, 5n, 8n, 9n, 16n, 255n, 2n ** 31n, 2n ** 32n + 4n, 2n ** 63n, 2n ** 63n + 1n, 2n ** 64n - 1n],
  value: [0n, 2n ** 32n - 1n],
  bus: [256n, 2n ** 31n, 2n ** 32n - 1n],
  device: [32n, 33n, 256n, 2n ** 32n - 1n],
  function: [8n, 9n, 256n, 2n ** 32n - 1n],
  register: [0xffcn, 0xfffn, 0x1000n, 2n ** 31n, 2n ** 32n - 1n]
}

const wild = Generator.elementOf(
  (Object.keys(WILD) as Array<Field>).flatMap((field) => WILD[field].map((value) => ({ field, value })))
)

const BAD_RANGES: ReadonlyArray<IoRange.IoRange> = [
  { _tag: "Port", start: 0x301, end: 0x300 },
  { _tag: "Port", start: -1, end: 0 },
  { _tag: "Port", start: 0xffff, end: 0x1_0000 },
  { _tag: "Port", start: 0, end: Infinity },
  { _tag: "Port", start: 0.5, end: 1 },
  { _tag: "Port", start: NaN, end: 1 },
  { _tag: "Mmio", start: 0xe000_0001, end: 0xe000_0000 },
  { _tag: "Mmio", start: 0, end: 2 ** 52 },
  { _tag: "Mmio", start: 2 ** 63, end: 2 ** 64 },
  { _tag: "Mmio", start: -(2 ** 32), end: 1 },
  { _tag: "Mmio", start: 1, end: 1.5 },
  { _tag: "PciFunction", bus: 256, device: 0, function: 0 },
  { _tag: "PciFunction", bus: 0, device: 32, function: 0 },
  { _tag: "PciFunction", bus: 0, device: 0, function: 8 },
  { _tag: "PciFunction", bus: -1, device: 0, function: 0 },
  { _tag: "Nowhere", start: 0, end: 1 }
  // Not every program is type-checked.
] as never

const WILD_SLOTS = [-1, 0.5, NaN, MAX_VCPUS, 2 ** 31, 2 ** 32, Infinity] as const

type StepDraft =
  | {
    readonly _tag: "Fill"
    readonly draft: Parameters<typeof NearbyRequests.requestAt>[1]
    readonly isPolled: boolean
    readonly spoilt: ReadonlyArray<{ readonly field: Field; readonly value: bigint }>
    readonly slot: number
  }
  | { readonly _tag: "Look"; readonly slot: number | undefined }

const stepDrafts = (vcpus: number): Generator.Generator<StepDraft> => {
  const fill = Generator.map(
    Generator.all({
      // Slots behind the last vCPU's are there, too, and nobody's.
      slot: Generator.integer(0, Math.min(vcpus, MAX_VCPUS - 1)),
      draft: NearbyRequests.drafts(1),
      isPolled: Generator.boolean,
      spoilt: Generator.array(wild, { maxLength: 2 })
    }),
    (chosen): StepDraft => ({ _tag: "Fill", ...chosen })
  )
  const look = Generator.map(
    Generator.oneOf<number | undefined>(
      Generator.constant(undefined),
      Generator.constant(undefined),
      Generator.integer(0, vcpus),
      Generator.elementOf(WILD_SLOTS)
    ),
    (slot): StepDraft => ({ _tag: "Look", slot })
  )
  return Generator.oneOf(fill, look)
}

const rawSlot = (
  places: World.Places,
  { draft, isPolled, slot, spoilt }: Extract<StepDraft, { readonly _tag: "Fill" }>
): Uint8Array => {
  const bytes = slotBytes({ ...NearbyRequests.requestAt(places, draft), vcpu: slot as VcpuId }, Pending, isPolled)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (const { field, value } of spoilt) writeField(view, field, value)
  return bytes
}

const showRange = (range: IoRange.IoRange): string =>
  Object.entries(range).map(([name, value]) => name === "_tag" ? String(value) : `${name} ${String(value)}`).join(" ")

const TYPES = ["port", "MMIO", "PCI", "write-protected"]

const showRaw = (raw: Uint8Array): string => {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength)
  const shown = (Object.keys(FIELDS) as Array<Field>).flatMap((field) => {
    const value = readField(view, field)
    const name = field === "type" ? ` (${TYPES[Number(value)] ?? "unknown"})` : ""
    return value === 0n && field !== "type" && field !== "size" ? [] : [`${field} ${hex(value)}${name}`]
  })
  return shown.join(", ")
}

const show = ({ badRanges, steps, vcpus, world }: Case): string =>
  [
    World.format(world),
    ...badRanges.map((range) => `refused: ${showRange(range)}`),
    `${vcpus} vCPUs; fields that are not shown are 0:`,
    ...steps.map((step, index) =>
      `  ${index + 1}. ${
        step._tag === "Fill"
          ? `slot ${step.slot}: ${showRaw(step.raw)}`
          : step.slot === undefined
          ? "upcall"
          : `upcall for slot ${step.slot}`
      }`
    )
  ].join("\n")

export const rawRequests = Law.make<Case>({
  number: 6,
  title: "slots, ports, addresses, sizes and ranges are checked before use, and what is impossible reaches no client",
  skip: noPageByHand,
  cases: ({ profile }) => {
    const vcpus = Math.min(3, profile.maxVcpus)
    return Generator.map(
      Generator.all({
        placed: World.placed(profile, World.timeless),
        badRanges: Generator.array(Generator.elementOf(BAD_RANGES), { maxLength: 2 }),
        steps: Generator.array(stepDrafts(vcpus), { maxLength: 24 })
      }),
      ({ badRanges, placed: { places, world }, steps }): Case => ({
        world,
        vcpus,
        badRanges,
        steps: steps.map((step): Step =>
          step._tag === "Look" ? step : { _tag: "Fill", slot: step.slot, raw: rawSlot(places, step) }
        )
      })
    )
  },
  show,
  holds
})
