/**
 * What a guest's memory and its first vCPU must hold before it starts, as a value.
 *
 * Image loaders only make plans; whoever owns the VM writes the segments and sets the registers. So a bad image is
 * refused before anything is touched, and a plan can be looked at, compared and tested without a VM.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { GuestAddress, hex } from "./Address.ts"
import { ADDRESS_SPACE_END } from "./Limits.ts"
import { formatSpan } from "./MemoryRegion.ts"
import { VcpuRegisters } from "./VcpuRegisters.ts"

/**
 * Bytes that go to guest physical `address` and up, and `zeroBytes` (default 0) more that are set to zero behind them: a
 * program's .bss, which a small file can make as large as the RAM. `name` says in messages what they are. `bytes` may
 * share memory with the image it came from: copy, do not keep or change it.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ImageSegment = Schema.Struct({
  name: Schema.String,
  address: GuestAddress,
  bytes: Schema.Uint8Array,
  zeroBytes: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: ADDRESS_SPACE_END })))
})

/**
 * @category models
 * @since 0.1.0
 */
export type ImageSegment = typeof ImageSegment.Type

/**
 * The bytes of guest memory that a segment sets, the zeros included.
 *
 * @category values
 * @since 0.1.0
 */
export const segmentSize = (segment: ImageSegment): number => segment.bytes.length + (segment.zeroBytes ?? 0)

type Parts = {
  readonly memoryBytes: number
  readonly segments: ReadonlyArray<ImageSegment>
  readonly registers: VcpuRegisters
}

const format = (segment: ImageSegment): string =>
  `${segment.name} (${formatSpan(segment.address, segmentSize(segment))})`

const insideMemory = Schema.makeFilter((plan: Parts) => {
  const outside = plan.segments.find((segment) => segment.address + segmentSize(segment) > plan.memoryBytes)
  return outside === undefined || `${format(outside)} is not wholly inside ${hex(plan.memoryBytes)} bytes of RAM`
})

const disjoint = Schema.makeFilter((plan: Parts) => {
  const ascending = plan.segments.toSorted((a, b) => a.address - b.address)
  const at = ascending.findIndex((segment, index) => {
    const next = ascending[index + 1]
    return next !== undefined && segment.address + segmentSize(segment) > next.address
  })
  return at < 0 || `${format(ascending[at]!)} overlaps ${format(ascending[at + 1]!)}`
})

const startsInside = Schema.makeFilter((plan: Parts) => {
  const entry = plan.registers.csBase + plan.registers.rip
  return plan.segments.some((segment) =>
    entry >= BigInt(segment.address) && entry < BigInt(segment.address + segment.bytes.length)
  ) || `the first instruction, at ${hex(entry)}, is in none of the segments`
})

/**
 * A plan for a VM with at least `memoryBytes` of RAM from guest physical address 0: every segment lies wholly in it, no
 * two overlap, and the first instruction is among the bytes of one of them.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ImagePlan = Schema.Struct({
  memoryBytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: ADDRESS_SPACE_END })),
  segments: Schema.Array(ImageSegment),
  registers: VcpuRegisters
}).check(insideMemory, disjoint, startsInside)

/**
 * @category models
 * @since 0.1.0
 */
export type ImagePlan = typeof ImagePlan.Type
