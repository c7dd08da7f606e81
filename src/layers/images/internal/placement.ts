/**
 * Finds room in guest memory beside what an image takes itself.
 */
import * as Result from "effect/Result"
import { PAGE_BYTES } from "../../../domain/Limits.ts"
import type { ImageError } from "../ImageError.ts"
import { fail } from "./options.ts"

/** Guest physical addresses from `start` to `end`, the latter exclusive. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** 32-bit code, and 64-bit code on our page tables, reaches no further, however much memory there is. */
export const REACH = 2 ** 32

/** The bytes below the default stack pointer that are free of everything else. */
export const STACK_BYTES = 4096

// A guest that follows a null pointer, or sets up real mode's tables, meets nothing of ours.
const LOWEST = PAGE_BYTES

export const alignDown = (step: number, value: number): number => Math.floor(value / step) * step
const alignUp = (step: number, value: number): number => Math.ceil(value / step) * step
export const pageUp = (value: number): number => alignUp(PAGE_BYTES, value)

/** RAM for something that ends at `end`, or 0 if no amount would do. */
export const reachable = (end: number): number => end <= REACH ? pageUp(end) : 0

const ascending = (spans: ReadonlyArray<Span>): ReadonlyArray<Span> => spans.toSorted((a, b) => a.start - b.start)

export const endOf = (spans: ReadonlyArray<Span>): number => spans.reduce((end, span) => Math.max(end, span.end), 0)

/** The first two spans, by address, that share a byte. */
export const findOverlap = <S extends Span>(spans: ReadonlyArray<S>): readonly [S, S] | undefined => {
  const sorted = spans.toSorted((a, b) => a.start - b.start)
  for (const [index, span] of sorted.entries()) {
    const next = sorted[index + 1]
    if (next !== undefined && next.start < span.end) return [span, next]
  }
  return undefined
}

export interface Room {
  /** How messages call it. */
  readonly file: string
  readonly what: string
  readonly bytes: number
  readonly align: number
  /** The lowest address wanted, default 4096. */
  readonly from?: number
  /** The end of memory. */
  readonly to: number
}

/** The lowest address where `bytes` bytes are free. */
export const placeLow = (taken: ReadonlyArray<Span>, room: Room): Result.Result<number, ImageError> => {
  const { align, bytes, file, from = LOWEST, to, what } = room
  let address = alignUp(align, from)
  for (const span of ascending(taken)) {
    if (address + bytes <= span.start) break
    address = Math.max(address, alignUp(align, span.end))
  }
  if (address + bytes <= to) return Result.succeed(address)
  return fail({ _tag: "DoesNotFit", file, what, bytes, from: address, to, needed: reachable(address + bytes) })
}

/** The first value of the stack pointer: `stack` if it is one, or else the highest that has `STACK_BYTES` free below. */
export const placeStack = (
  taken: ReadonlyArray<Span>,
  options: { readonly file: string; readonly stack: number | undefined; readonly reach: number }
): Result.Result<number, ImageError> => {
  const { file, reach, stack } = options
  // ESP has 32 bits, so it cannot hold the end of 4 GiB itself.
  const top = Math.min(reach, REACH - 16)
  if (stack !== undefined) {
    return Number.isInteger(stack) && stack >= 4 && stack <= top && stack % 4 === 0 ? Result.succeed(stack) : fail({
      _tag: "BadOption",
      option: "stack",
      expected: `a multiple of 4 from 4 to ${top}`,
      found: String(stack)
    })
  }
  let below = top
  for (const span of ascending(taken).toReversed()) {
    const pointer = alignDown(16, below)
    if (pointer - span.end >= STACK_BYTES) return Result.succeed(pointer)
    below = span.start
  }
  const pointer = alignDown(16, below)
  if (pointer >= STACK_BYTES) return Result.succeed(pointer)
  const end = endOf(taken)
  return fail({
    _tag: "DoesNotFit",
    file,
    what: "a stack beside the image",
    bytes: STACK_BYTES,
    from: Math.min(end, top),
    to: top,
    needed: reachable(end + STACK_BYTES)
  })
}
