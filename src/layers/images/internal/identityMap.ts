/**
 * What 64-bit mode needs in memory: page tables that map every address to itself, and a descriptor table. Source: Intel
 * SDM volume 3, sections 3.4.5 and 4.5.4.
 *
 * The first 4 GiB are mapped, RAM or not, in pages of 2 MiB: that is where devices are, it takes six tables whatever the
 * RAM, and pages of 1 GiB are not on every processor.
 */
import { PAGE_BYTES } from "../../../domain/Limits.ts"

const PRESENT_WRITABLE = 0b11n
const LARGE_PAGE = 1n << 7n
const LARGE_PAGE_BYTES = 2 ** 21
const ENTRIES = 512
const DIRECTORIES = 4

/** The top table, the one below it, and one for each GiB. */
export const TABLE_BYTES = (2 + DIRECTORIES) * PAGE_BYTES

/** Two null descriptors, then flat 64-bit code at selector 0x10 and flat data at 0x18. */
const descriptors = [0n, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]

export const GDT_BYTES = descriptors.length * 8

const words = (values: Iterable<bigint>, count: number): Uint8Array => {
  const view = new DataView(new ArrayBuffer(count * 8))
  let at = 0
  for (const value of values) {
    view.setBigUint64(at, value, true)
    at += 8
  }
  return new Uint8Array(view.buffer)
}

export const gdt = (): Uint8Array => words(descriptors, descriptors.length)

const link = (table: number): bigint => BigInt(table) | PRESENT_WRITABLE

/** The tables as they stand at `address`, a multiple of 4096, the top one first. */
export const pageTables = (address: number): Uint8Array => {
  const table = (index: number) => address + index * PAGE_BYTES
  const entries = new BigUint64Array(TABLE_BYTES / 8)
  entries[0] = link(table(1))
  for (let directory = 0; directory < DIRECTORIES; directory++) {
    entries[ENTRIES + directory] = link(table(2 + directory))
  }
  for (let page = 0; page < DIRECTORIES * ENTRIES; page++) {
    entries[2 * ENTRIES + page] = BigInt(page * LARGE_PAGE_BYTES) | LARGE_PAGE | PRESENT_WRITABLE
  }
  return words(entries, entries.length)
}
