/**
 * The memory map of a small PC with one block of RAM from address 0: 1 KiB of firmware data below 640 KiB, video memory
 * above it that is not there, the firmware below 1 MiB.
 */

const FIRMWARE_DATA_START = 0x9_fc00
const VIDEO_START = 0xa_0000
const FIRMWARE_START = 0xf_0000
const HIGH_RAM_START = 0x10_0000

const RAM = 1
const RESERVED = 2

/** `[start, end)` of memory that is of one type. */
export interface MemoryRange {
  readonly start: number
  readonly end: number
  readonly type: typeof RAM | typeof RESERVED
}

const pc: ReadonlyArray<MemoryRange> = [
  { start: 0, end: FIRMWARE_DATA_START, type: RAM },
  { start: FIRMWARE_DATA_START, end: VIDEO_START, type: RESERVED },
  { start: FIRMWARE_START, end: HIGH_RAM_START, type: RESERVED },
  { start: HIGH_RAM_START, end: Infinity, type: RAM }
]

/** The numbers of types are those of the BIOS call E820, which Linux and Multiboot use too. Ascending. */
export const memoryMap = (memoryBytes: number): ReadonlyArray<MemoryRange> =>
  pc.filter(({ start }) => start < memoryBytes).map((range) => ({ ...range, end: Math.min(range.end, memoryBytes) }))

/** RAM below 640 KiB and from 1 MiB on, in bytes. */
export const lowAndHighRam = (memoryBytes: number): { readonly low: number; readonly high: number } => ({
  low: Math.min(memoryBytes, FIRMWARE_DATA_START),
  high: Math.max(0, memoryBytes - HIGH_RAM_START)
})
