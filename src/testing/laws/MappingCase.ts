/**
 * The cases of law 18: what a guest does over a few pages, a window, while its device changes what is mapped there.
 */
import { MemoryAccess } from "../../domain/abi/MemoryRegionBatch.ts"
import { hex } from "../../domain/Address.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import type { AccessRights } from "../../domain/MemoryRegion.ts"
import { all, array, bits, constant, elementOf, flatMap, type Generator, integer, map, oneOf } from "../Generator.ts"

/** An operation of a batch, on pages of the window; a skewed one begins in the middle of its page. */
export interface MapOperation {
  readonly isAdd: boolean
  readonly page: number
  readonly isSkewed: boolean
  readonly bytes: number
  /** Index of the first service page, or none that is memory. */
  readonly service: number | "Nowhere"
  readonly rights: number
}

export type Step =
  | { readonly _tag: "Batch"; readonly operations: ReadonlyArray<MapOperation> }
  | { readonly _tag: "Load"; readonly offset: number; readonly size: 1 | 2 | 4 | 8 }
  | { readonly _tag: "Store"; readonly offset: number; readonly size: 1 | 2 | 4 | 8; readonly value: bigint }

export interface MappingCase {
  readonly steps: ReadonlyArray<Step>
  /** The page that the guest calls at its end, to see whether it may execute there. */
  readonly called: number
}

export const WINDOW_PAGES = 4
// The first pages of the window are the last of the VM's RAM: its home pages, with which every hypervisor begins.
export const HOME_PAGES = 2
// Below it lie the program and, of 64-bit code, its page tables.
export const WINDOW = 0xa000
export const RAM_BYTES = WINDOW + HOME_PAGES * PAGE_BYTES
export const SERVICE_PAGES = 4
// Every page has a RET here, where no generated access comes.
export const RETURN_OFFSET = 0x400
const RETURN = 0xc3

/**
 * What stands at first in the home pages, then in the service pages: different in all of them, and at all places near
 * each other.
 */
export const FIRST_BYTES: ReadonlyArray<Uint8Array> = [...Array(HOME_PAGES + SERVICE_PAGES).keys()].map((page) => {
  const bytes = Uint8Array.from({ length: PAGE_BYTES }, (_, offset) => page * 0x1f + offset * 7 + (offset >> 8))
  bytes[RETURN_OFFSET] = RETURN
  return bytes
})

/** What the device reads as at a guest address. */
export const deviceByte = (address: number): number => (address * 37 + 11 + (address >> 8)) & 0xff

// Execute alone is a right that says: any load and store is a request.
const RIGHTS: ReadonlyArray<number> = [
  MemoryAccess.All,
  MemoryAccess.Read | MemoryAccess.Write,
  MemoryAccess.Read | MemoryAccess.Execute,
  MemoryAccess.Read,
  MemoryAccess.Execute
]

const wordOf = ({ execute, read, write }: AccessRights): number =>
  (read ? MemoryAccess.Read : 0) | (write ? MemoryAccess.Write : 0) | (execute ? MemoryAccess.Execute : 0)

const mapOperation = ({ accessRights }: HypervisorProfile): Generator<MapOperation> =>
  all({
    isAdd: elementOf([true, true, false]),
    page: integer(0, WINDOW_PAGES - 1),
    isSkewed: elementOf([false, false, false, true]),
    bytes: elementOf([1, 1, 2, 2, 0, 0.5].map((pages) => pages * PAGE_BYTES)),
    service: elementOf([0, 1, 2, 0, 1, 2, "Nowhere"] as const),
    rights: elementOf(accessRights?.map(wordOf) ?? RIGHTS)
  })

// Around the ends of a page, which wide accesses cross.
const offsetInPage = elementOf([0, 1, 2, 0x7fd, PAGE_BYTES - 4, PAGE_BYTES - 3, PAGE_BYTES - 2, PAGE_BYTES - 1])

/** Cases whose accesses are of the profile's widths, and whose pages have rights that it keeps. */
export const cases = (profile: HypervisorProfile): Generator<MappingCase> => {
  const narrow = casesOf(profile, [1, 2, 4])
  return profile.modes.includes("Long64") ? oneOf(narrow, casesOf(profile, [1, 2, 4, 8])) : narrow
}

const casesOf = (profile: HypervisorProfile, widths: ReadonlyArray<1 | 2 | 4 | 8>): Generator<MappingCase> => {
  const sizes = widths.filter((size) => profile.mmioWidths.includes(size))
  const place = flatMap(
    elementOf(sizes),
    (size) =>
      map(all([integer(0, WINDOW_PAGES - 1), offsetInPage]), ([page, offset]) => ({
        size,
        offset: Math.min(page * PAGE_BYTES + offset, WINDOW_PAGES * PAGE_BYTES - size)
      }))
  )
  const batch = map(
    array(mapOperation(profile), { maxLength: 4 }),
    (operations): Step => ({ _tag: "Batch", operations })
  )
  const load = map(place, (at): Step => ({ _tag: "Load", ...at }))
  const store = map(
    all([place, bits(widths.includes(8) ? 64 : 32)]),
    ([at, value]): Step => ({ _tag: "Store", ...at, value: at.size === 8 ? value : BigInt.asUintN(32, value) })
  )
  const steps = array(oneOf(load, store, batch), { maxLength: 12 })
  return map(
    all({ parts: all([steps, steps, steps]), called: called(profile) }),
    ({ called: page, parts }) => ({ steps: parts.flat(), called: page })
  )
}

// A core without page mappings may fetch instructions from its devices; what it finds there is nobody's business.
const called = ({ mapping }: HypervisorProfile): Generator<number> =>
  mapping === "Pages" ? integer(0, WINDOW_PAGES - 1) : constant(0)

const rightsText = (word: number): string =>
  [[MemoryAccess.Read, "r"], [MemoryAccess.Write, "w"], [MemoryAccess.Execute, "x"]]
    .map(([bit, letter]) => (word & Number(bit)) === 0 ? "-" : letter)
    .join("")

const formatOperation = ({ bytes, isAdd, isSkewed, page, rights: word, service }: MapOperation): string => {
  const where = `${hex(bytes)} bytes at ${hex(WINDOW + page * PAGE_BYTES + (isSkewed ? PAGE_BYTES / 2 : 0))}`
  if (!isAdd) return `unmap ${where}`
  return `map ${where} from ${service === "Nowhere" ? "no memory" : `service page ${service}`} as ${rightsText(word)}`
}

const formatStep = (step: Step): string => {
  switch (step._tag) {
    case "Batch":
      return `batch [${step.operations.map(formatOperation).join("; ")}]`
    case "Load":
      return `load ${step.size} bytes at ${hex(WINDOW + step.offset)}`
    case "Store":
      return `store the low ${step.size} bytes of ${hex(step.value)} at ${hex(WINDOW + step.offset)}`
  }
}

/** A case for people, a line for each thing that the guest does. */
export const show = ({ called: page, steps }: MappingCase): string =>
  [...steps.map(formatStep), `call ${hex(WINDOW + page * PAGE_BYTES + RETURN_OFFSET)}`]
    .map((line, index) => `${index + 1}. ${line}`).join("\n")
