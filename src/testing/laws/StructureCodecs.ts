/**
 * Law 19, of structures: each layout by itself, each hypercall's words and structures, and the Service VM memory in which
 * they travel.
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Result from "effect/Result"
import { nameOf } from "../../domain/abi/HypercallId.ts"
import { IntrMonitor } from "../../domain/abi/IntrMonitor.ts"
import { IoEventFd } from "../../domain/abi/IoEventFd.ts"
import { IoRequestBufferWord } from "../../domain/abi/IoRequestBufferWord.ts"
import { IoRequestNotify } from "../../domain/abi/IoRequestNotify.ts"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import { IrqFd } from "../../domain/abi/IrqFd.ts"
import * as IrqLineWord from "../../domain/abi/IrqLineWord.ts"
import type * as Layout from "../../domain/abi/Layout.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "../../domain/abi/MemoryRegionBatch.ts"
import { MsiEntry } from "../../domain/abi/MsiEntry.ts"
import { DescriptorPtr, GpRegs, Regs, VcpuRegs } from "../../domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../domain/abi/VmCreation.ts"
import { VmMemmap } from "../../domain/abi/VmMemmap.ts"
import { hex } from "../../domain/Address.ts"
import { Errno } from "../../domain/Errno.ts"
import * as Hypercall from "../../domain/Hypercall.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { ServiceMemory } from "../../services/ServiceMemory.ts"
import { all, array, constant, elementOf, type Generator, integer, map, oneOf } from "../Generator.ts"
import * as Law from "../Law.ts"
import { type AnyLayout, leavesOf, misfitsFor, repeat, replaced } from "./layoutValues.ts"

/** Every structure of `domain/abi`. */
export const structures: ReadonlyArray<AnyLayout> = [
  VmCreation,
  GpRegs,
  DescriptorPtr,
  Regs,
  VcpuRegs,
  Slot.PioRequest,
  Slot.MmioRequest,
  Slot.PciRequest,
  Slot.IoRequestSlot,
  Slot.IoRequestPage,
  IoRequestNotify,
  MemoryRegionOp,
  MemoryRegionBatch,
  IoRequestBufferWord,
  VmMemmap,
  MsiEntry,
  IoEventFd,
  IrqFd,
  IntrMonitor,
  IrqLineWord.IrqLineWord
]

/**
 * Bytes are a short pattern repeated. Numbers that choose one of several are taken modulo how many there are.
 *
 * - `Structure`: one layout, at an offset in more bytes, cut short, and with one field that does not fit.
 * - `Hypercall`: one call, and its structures cut short.
 * - `Memory`: a piece of Service VM memory, and an address that is none.
 */
type Case =
  | {
    readonly _tag: "Structure"
    readonly layout: number
    readonly pattern: ReadonlyArray<number>
    readonly offset: number
    readonly cut: number
    readonly field: number
    readonly misfit: number
  }
  | {
    readonly _tag: "Hypercall"
    readonly call: number
    readonly pattern: ReadonlyArray<number>
    readonly operations: number
    readonly cut: number
  }
  | {
    readonly _tag: "Memory"
    readonly pattern: ReadonlyArray<number>
    readonly offset: number
    readonly length: number
    readonly stray: number
  }

const SCRATCH = 0x10_0000
const FILLER = 0x5a
const STRAY_ADDRESSES = [-1, -PAGE_BYTES, 0.5, Number.NaN, Infinity, 2 ** 52, 2 ** 53, 2 ** 64 - 8, 2 ** 64]

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index])

const pick = <A>(values: ReadonlyArray<A>, index: number): A => values[index % values.length]!

const structureProblem = (tried: Extract<Case, { readonly _tag: "Structure" }>): string | undefined => {
  const layout = pick(structures, tried.layout)
  const { cName, size } = layout
  const value = Result.getOrUndefined(layout.decode(repeat(tried.pattern, size)))
  if (value === undefined) return `${cName} does not decode from ${size} bytes`
  const encoded = Result.getOrUndefined(layout.encode(value as never))
  if (encoded?.length !== size) return `${cName} encodes to ${encoded?.length ?? "no"} bytes, not ${size}`

  // In the middle of other bytes, which stay as they are.
  const { offset } = tried
  const target = new Uint8Array(offset + size + offset).fill(FILLER)
  if (Result.isFailure(layout.encodeInto(value as never, target, offset))) return `${cName} is not encoded into bytes`
  const around = target.slice()
  around.fill(FILLER, offset, offset + size)
  if (!around.every((byte) => byte === FILLER)) return `${cName} writes beyond its ${size} bytes`
  if (!sameBytes(target.subarray(offset, offset + size), encoded)) return `encode and encodeInto of ${cName} differ`
  const again = Result.getOrUndefined(layout.decode(target, offset))
  if (!Equal.equals(again, value)) return `decode(encode(x)) of ${cName} is not x`
  target.fill(FILLER)
  // By its bytes: that two objects were equal is remembered.
  const after = Result.getOrUndefined(layout.encode(again as never))
  if (after === undefined || !sameBytes(after, encoded)) return `${cName} shares memory with what it was decoded from`

  // Short: cut somewhere, at any offset.
  const left = tried.cut % size
  const short = new Uint8Array(offset + left).fill(FILLER)
  const refusals = [
    layout.decode(short, offset),
    layout.encodeInto(value as never, short, offset),
    layout.decode(target, target.length + 1),
    layout.decode(target, -1),
    layout.decode(target, offset + 0.5)
  ]
  if (!refusals.every(Result.isFailure)) return `${cName} is taken from bytes that do not hold it`
  if (!short.every((byte) => byte === FILLER)) return `${cName} is written in part to bytes that are too few`

  const { leaf, path } = pick(leavesOf(value), tried.field)
  const misfit = pick(misfitsFor(leaf), tried.misfit)
  const before = target.slice()
  const isTaken = Result.isSuccess(layout.encodeInto(replaced(value, path, misfit) as never, target, offset))
  if (isTaken) return `${cName}.${path.join(".")} takes a value that does not fit`
  return sameBytes(target, before) ? undefined : `${cName} is written in part with a value that does not fit`
}

const decoded = <F extends Layout.Fields>(layout: Layout.Layout<F>, pattern: ReadonlyArray<number>) =>
  Result.getOrThrow(layout.decode(repeat(pattern, layout.size)))

/** Every hypercall with values that the pattern gives. */
const hypercallsOf = (pattern: ReadonlyArray<number>, operations: number): ReadonlyArray<Hypercall.Hypercall> => {
  const { vcpuId, vcpuRegs } = decoded(VcpuRegs, pattern)
  const { vmid: vmId } = decoded(IoRequestNotify, pattern)
  const plain = { vmId }
  const operation = (index: number) => decoded(MemoryRegionOp, [...pattern.slice(index % pattern.length), ...pattern])
  return [
    { _tag: "CreateVm", creation: decoded(VmCreation, pattern) },
    { _tag: "DestroyVm", ...plain },
    { _tag: "StartVm", ...plain },
    { _tag: "PauseVm", ...plain },
    { _tag: "ResetVm", ...plain },
    { _tag: "SetVcpuRegs", ...plain, vcpuId, registers: vcpuRegs },
    { _tag: "SetIoRequestBuffer", ...plain, page: decoded(IoRequestBufferWord, pattern).ioreqBuf },
    { _tag: "NotifyRequestFinish", ...plain, vcpuId },
    {
      _tag: "SetMemoryRegions",
      ...plain,
      operations: Array.from({ length: operations }, (_, index) => operation(index))
    },
    { _tag: "SetIrqLine", ...plain, ...decoded(IrqLineWord.IrqLineWord, pattern) }
  ]
}

const REFUSED = Result.fail(-Errno.EPERM)
// The structures that name their VM: without them there is none.
const NO_VM = Result.fail(-Errno.ENOTTY)

const hypercallProblem = (tried: Extract<Case, { readonly _tag: "Hypercall" }>): string | undefined => {
  const hypercall = pick(hypercallsOf(tried.pattern, tried.operations), tried.call)
  const encoded = Hypercall.encode(hypercall, SCRATCH)
  if (Result.isFailure(encoded)) return `${hypercall._tag} does not encode: ${encoded.failure.message}`
  const { id, param1, param2, structures: bytes } = encoded.success
  if (nameOf(id) === undefined) return `${hypercall._tag} encodes to an id that is none`
  // Memory that holds nothing but this call's structures, and of them only so many bytes. A reader may say that not all
  // is there, or give what there is.
  const decodeFrom = (length: number, isPartGiven = false) =>
    Hypercall.decode(
      { id, param1, param2 },
      (at, count) => {
        const start = Number(at) - SCRATCH
        return start >= 0 && (isPartGiven || start + count <= length)
          ? bytes.slice(start, Math.min(start + count, length))
          : undefined
      },
      tried.operations
    )
  const again = decodeFrom(bytes.length)
  if (Result.isFailure(again)) return `${hypercall._tag} does not decode: ${again.failure}`
  if (!Equal.equals(again.success, hypercall)) return `decode(encode(x)) of ${hypercall._tag} is not x`
  if (bytes.length === 0) return undefined
  const cut = tried.cut % bytes.length
  const namesVm = hypercall._tag === "CreateVm" ?
    VmCreation.size
    : hypercall._tag === "SetMemoryRegions"
    ? MemoryRegionBatch.size
    : 0
  const refusal = cut < namesVm ? NO_VM : REFUSED
  const isTaken = [decodeFrom(cut), decodeFrom(cut, true)].some((other) => !Equal.equals(other, refusal))
  return isTaken ? `${hypercall._tag} is taken from ${cut} of its ${bytes.length} bytes` : undefined
}

const REGION_BYTES = 2 * PAGE_BYTES

const memoryProblem = (tried: Extract<Case, { readonly _tag: "Memory" }>) =>
  Effect.gen(function*() {
    const memory = yield* ServiceMemory
    const { address } = yield* memory.allocate({ bytes: REGION_BYTES, purpose: { _tag: "HypercallStructures" } })
    const before = new Uint8Array(REGION_BYTES).fill(FILLER)
    if (Result.isFailure(memory.write(address, before))) return "memory that was given cannot be written"
    const offset = tried.offset % REGION_BYTES
    const piece = repeat(tried.pattern, tried.length % (REGION_BYTES - offset + 1))
    if (Result.isFailure(memory.write(address + offset, piece))) return "memory that was given cannot be written"
    const stray = pick([...STRAY_ADDRESSES, address + 0.5], tried.stray)
    const isRefused = Result.isFailure(memory.read(stray, new Uint8Array(8))) &&
      Result.isFailure(memory.write(stray, new Uint8Array(8))) && Result.isFailure(memory.page(stray))
    if (!isRefused) return `address ${stray} is taken for memory`
    const isPage = offset % PAGE_BYTES === 0
    if (Result.isSuccess(memory.page(address + offset)) !== isPage) {
      return `a page is ${isPage ? "not " : ""}given at ${hex(offset)} in a region`
    }
    const after = new Uint8Array(REGION_BYTES)
    if (Result.isFailure(memory.read(address, after))) return "memory that was given cannot be read"
    before.set(piece, offset)
    return sameBytes(after, before) ? undefined : `${piece.length} bytes written at ${hex(offset)} do not read so`
  })

const byte = integer(0, 0xff)
const pattern: Generator<ReadonlyArray<number>> = oneOf<ReadonlyArray<number>>(
  constant([0]),
  constant([0xff]),
  array(byte, { minLength: 1, maxLength: 61 })
)
const index = integer(0, 0xffff)

const cases: Generator<Case> = oneOf<Case>(
  map(
    all({ layout: index, pattern, offset: integer(0, 96), cut: index, field: index, misfit: index }),
    (fields): Case => ({ _tag: "Structure", ...fields })
  ),
  map(
    all({ call: index, pattern, operations: integer(0, 4), cut: index }),
    (fields): Case => ({ _tag: "Hypercall", ...fields })
  ),
  map(
    all({
      pattern,
      offset: oneOf(elementOf([0, PAGE_BYTES, 8, PAGE_BYTES - 1, REGION_BYTES - 1]), index),
      length: index,
      stray: index
    }),
    (fields): Case => ({ _tag: "Memory", ...fields })
  )
)

const show = (tried: Case): string => {
  const bytes = `bytes ${tried.pattern.map((value) => value.toString(16).padStart(2, "0")).join(" ")} repeated`
  switch (tried._tag) {
    case "Structure":
      return `${pick(structures, tried.layout).cName} at offset ${tried.offset}, ${bytes}; ` +
        `cut ${tried.cut}, field ${tried.field}, misfit ${tried.misfit}`
    case "Hypercall":
      return `${pick(hypercallsOf([0], 0), tried.call)._tag} with ${tried.operations} operations, ${bytes}; ` +
        `cut ${tried.cut}`
    case "Memory":
      return `${tried.length} bytes of memory at offset ${tried.offset}, ${bytes}; ` +
        `stray address ${pick([...STRAY_ADDRESSES, "half a byte into it"], tried.stray)}`
  }
}

export const structureCodecs = Law.make<Case>({
  number: 19,
  title: "decode(encode(x)) = x for every structure; short, misaligned or wrapping ones are refused",
  cases: () => cases,
  show,
  holds: (tried) => {
    switch (tried._tag) {
      case "Structure":
        return Law.holdsUnless(structureProblem(tried))
      case "Hypercall":
        return Law.holdsUnless(hypercallProblem(tried))
      case "Memory":
        return Effect.flatMap(memoryProblem(tried), Law.holdsUnless)
    }
  }
})
