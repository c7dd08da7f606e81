/**
 * The two ways a program that sets up nothing itself is started: what must stand in memory beside it, and the registers.
 */
import * as Result from "effect/Result"
import { GuestAddress } from "../../../domain/Address.ts"
import { type ImageSegment, segmentSize } from "../../../domain/ImagePlan.ts"
import { PAGE_BYTES } from "../../../domain/Limits.ts"
import * as VcpuRegisters from "../../../domain/VcpuRegisters.ts"
import type { ImageError } from "../ImageError.ts"
import { gdt, GDT_BYTES, pageTables, TABLE_BYTES } from "./identityMap.ts"
import { placeLow, placeStack, type Span, STACK_BYTES } from "./placement.ts"

export interface Start {
  readonly file: string
  readonly mode: "Protected32" | "Long64"
  /** The image's own, none of which overlap. */
  readonly segments: ReadonlyArray<ImageSegment>
  readonly entry: number
  readonly stack: number | undefined
  readonly gprs?: Partial<VcpuRegisters.GeneralRegisters> | undefined
  /** The end of the memory that the program reaches. */
  readonly reach: number
}

export interface Started {
  readonly segments: ReadonlyArray<ImageSegment>
  readonly registers: VcpuRegisters.VcpuRegisters
}

export const spanOf = (segment: ImageSegment): Span => ({
  start: segment.address,
  end: segment.address + segmentSize(segment)
})

/** Fails when there is no room beside the image, and when the stack pointer asked for is none. */
export const makeStart = (start: Start): Result.Result<Started, ImageError> =>
  Result.gen(function*() {
    const { entry, file, gprs, mode, reach, segments } = start
    const image = segments.map(spanOf)
    const stack = yield* placeStack(image, start)
    if (mode === "Protected32") {
      const selectors = { code: 0x08, data: 0x10 }
      return { segments, registers: VcpuRegisters.flat32({ entry, stack, gprs, selectors }) }
    }
    const stackSpan = { start: Math.max(0, stack - STACK_BYTES), end: stack }
    const tables = yield* placeLow([...image, stackSpan], {
      file,
      what: "a set of page tables for 64-bit mode, beside the image and its stack,",
      bytes: TABLE_BYTES + GDT_BYTES,
      align: PAGE_BYTES,
      to: reach
    })
    const gdtAddress = tables + TABLE_BYTES
    return {
      segments: [
        ...segments,
        { name: "page tables", address: GuestAddress.make(tables), bytes: pageTables(tables) },
        { name: "GDT", address: GuestAddress.make(gdtAddress), bytes: gdt() }
      ],
      registers: VcpuRegisters.long64({
        entry,
        stack,
        gprs,
        pageTables: tables,
        gdt: { base: BigInt(gdtAddress), limit: GDT_BYTES - 1 }
      })
    }
  })
