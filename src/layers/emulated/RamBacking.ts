/**
 * Guest RAM inside a CPU's memory, as a region of Service VM memory. The CPU may be replaced, or be gone.
 */
import type { Backing } from "../../services/AddressSpace.ts"
import type { GuestRam } from "./GuestRam.ts"

const FIRST_REQUEST_BYTE = 64
const LAST_REQUEST_BYTE = 104

export const ramBacking = (bytes: number, ram: () => GuestRam | undefined): Backing => {
  const load = (offset: number) => ram()?.load32(offset) ?? 0
  const store = (offset: number, value: number) => ram()?.store32(offset, value)
  const requestOffsets = [0, 4]
  for (let offset = FIRST_REQUEST_BYTE; offset <= LAST_REQUEST_BYTE; offset += 4) requestOffsets.push(offset)
  return {
    bytes,
    read: (offset, into) => {
      const memory = ram()
      if (memory === undefined) into.fill(0)
      else memory.readInto(offset, into)
    },
    write: (offset, from) => ram()?.write(offset, from),
    page: (base) => ({
      load32: (offset) => load(base + offset),
      store32: (offset, value) => store(base + offset, value),
      fetchRequest: (slot, words) => {
        for (const offset of requestOffsets) words[offset / 4] = load(base + slot + offset)
      },
      storeRequest: (slot, words) => {
        for (const offset of requestOffsets) store(base + slot + offset, words[offset / 4] ?? 0)
      }
    })
  }
}
