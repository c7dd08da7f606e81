/**
 * What a hostile peer does to an I/O request page, as data: which field of which slots becomes what.
 */
import * as Slot from "../../domain/abi/IoRequestSlot.ts"

/** A field of a slot; `bytes` is 4 or 8, `offset` counts from the slot's begin. */
export interface PageField {
  readonly name: string
  readonly offset: number
  readonly bytes: 4 | 8
}

const field = (name: string, offset: number, bytes: 4 | 8 = 4): PageField => ({ name, offset, bytes })

const state = field("state", Slot.SLOT_STATE_OFFSET)
const type = field("type", Slot.SLOT_TYPE_OFFSET)
const polling = field("completion_polling", Slot.SLOT_COMPLETION_POLLING_OFFSET)
const kernelHandled = field("kernel_handled", Slot.SLOT_KERNEL_HANDLED_OFFSET)
const direction = field("direction", Slot.REQUEST_DIRECTION_OFFSET)
const address = field("address", Slot.REQUEST_ADDRESS_OFFSET, 8)
const size = field("size", Slot.REQUEST_SIZE_OFFSET, 8)
const value = field("value", Slot.REQUEST_VALUE_OFFSET, 8)
const pci = [
  field("bus", Slot.REQUEST_PCI_BUS_OFFSET),
  field("device", Slot.REQUEST_PCI_DEVICE_OFFSET),
  field("function", Slot.REQUEST_PCI_FUNCTION_OFFSET),
  field("register", Slot.REQUEST_PCI_REGISTER_OFFSET)
]
const request = [type, polling, direction, address, size, value]

// Between the polling word and the request, and from the state on.
const unowned = [
  ...Array.from({ length: 14 }, (_, i) => field("unowned", polling.offset + 4 + i * 4)),
  ...Array.from({ length: 29 }, (_, i) => field("unowned", state.offset + 4 + i * 4))
]

/** Words at the edges of what a field may be. Each is cut to its field. */
const edges = [0n, 1n, 2n, 3n, 4n, 8n, 0xffffn, 0x1_0000n, 1n << 31n, (1n << 32n) - 1n, 1n << 63n, (1n << 64n) - 1n]
const sizes = [0n, 3n, 5n, 16n, 1n << 32n | 4n, 1n << 63n, (1n << 64n) - 1n]
const addresses = [0xffffn, 0x1_0000n, (1n << 52n) - 1n, 1n << 52n, 1n << 63n, (1n << 64n) - 1n]

export interface AttackRule {
  /**
   * - `Fetched`: the request was read and is not yet completed.
   * - `Missing`: the VM has no such vCPU.
   * - `Served`: the VM has this vCPU.
   * - `All`: any of the 16.
   */
  readonly slots: "Fetched" | "Missing" | "Served" | "All"
  readonly fields: ReadonlyArray<PageField>
  /** What the field becomes; `Backwards` is the state before the one that the slot shows. */
  readonly values: ReadonlyArray<bigint> | "Random" | "Backwards"
}

export const SURVIVABLE_ATTACKS = ["FetchedRequest", "MissingVcpu", "KernelHandled", "UnownedBytes"] as const

export const HOSTILE_ATTACKS = [
  "StateBackwards",
  "StateForged",
  "StateForeign",
  "Size",
  "Address",
  "Value",
  "Direction",
  "Type",
  "Polling",
  "PciFunction"
] as const

export type Attack = typeof SURVIVABLE_ATTACKS[number] | typeof HOSTILE_ATTACKS[number]

export const rules: Readonly<Record<Attack, AttackRule>> = {
  FetchedRequest: { slots: "Fetched", fields: request, values: edges },
  // Twice the state: a slot that never says PENDING proves little.
  MissingVcpu: { slots: "Missing", fields: [state, state, ...request], values: edges },
  KernelHandled: { slots: "All", fields: [kernelHandled], values: edges },
  UnownedBytes: { slots: "All", fields: unowned, values: "Random" },
  StateBackwards: { slots: "Served", fields: [state], values: "Backwards" },
  StateForged: { slots: "Served", fields: [state], values: Object.values(Slot.SlotStateCode).map(BigInt) },
  StateForeign: { slots: "Served", fields: [state], values: [4n, 0xffn, 0x100n, 1n << 31n, (1n << 32n) - 1n] },
  Size: { slots: "Served", fields: [size], values: sizes },
  Address: { slots: "Served", fields: [address], values: addresses },
  Value: { slots: "Served", fields: [value], values: "Random" },
  Direction: { slots: "Served", fields: [direction], values: [0n, 1n, 2n, 1n << 31n, (1n << 32n) - 1n] },
  Type: { slots: "Served", fields: [type], values: [0n, 1n, 2n, 3n, 4n, 1n << 31n, (1n << 32n) - 1n] },
  Polling: { slots: "Served", fields: [polling], values: [0n, 1n, 1n << 31n] },
  PciFunction: { slots: "Served", fields: pci, values: edges }
}

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

const predecessors = new Map<number, number>([
  [Free, Complete],
  [Pending, Free],
  [Processing, Pending],
  [Complete, Processing]
])

/** The state before this one on a request's way; that of a foreign one is the first. */
export const stateBefore = (code: number): number => predecessors.get(code) ?? Pending
