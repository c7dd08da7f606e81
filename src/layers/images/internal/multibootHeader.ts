/**
 * The header of a Multiboot kernel, and the kernel as it is put in memory. Source: Multiboot Specification 0.6.96,
 * sections 3.1 and 3.2; names are those of the document.
 */
import * as Result from "effect/Result"
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { GuestAddress, hex } from "../../../domain/Address.ts"
import type { ImageSegment } from "../../../domain/ImagePlan.ts"
import type { ImageError } from "../ImageError.ts"
import * as ElfFile from "./elf.ts"
import { fail } from "./options.ts"
import { reachable } from "./placement.ts"
import { Source } from "./source.ts"

const MAGIC = 0x1bad_b002
/** The header lies wholly in this much of the file, on a multiple of 4. */
const SEARCHED_BYTES = 8192

const MAGIC_2 = 0xe852_50d6
const SEARCHED_BYTES_2 = 32_768

const MODULES_ON_PAGES = 1 << 0
const MEMORY_INFORMATION = 1 << 1
const VIDEO_MODE = 1 << 2
const HAS_ADDRESSES = 1 << 16
/** A loader must refuse a kernel that asks for something by one of these bits that it does not know. */
const REQUIREMENTS = 0xffff

const Identification = Layout.struct("multiboot_header", {
  magic: Field.u32("magic"),
  flags: Field.u32("flags"),
  checksum: Field.u32("checksum")
})

const Addresses = Layout.struct("multiboot_header", {
  ...Identification.fields,
  header_addr: Field.u32("header_addr"),
  load_addr: Field.u32("load_addr"),
  load_end_addr: Field.u32("load_end_addr"),
  bss_end_addr: Field.u32("bss_end_addr"),
  entry_addr: Field.u32("entry_addr")
})

export interface Kernel {
  readonly segments: ReadonlyArray<ImageSegment>
  /** The guest physical address of the first instruction, which is among some segment's bytes. */
  readonly entry: number
}

type Search =
  | { readonly _tag: "Found"; readonly offset: number; readonly flags: number }
  | { readonly _tag: "BadChecksum"; readonly offset: number; readonly checksum: number; readonly expected: number }
  | { readonly _tag: "Missing" }

const sumIsZero = (...words: ReadonlyArray<number>): boolean => words.reduce((sum, word) => (sum + word) >>> 0, 0) === 0

const search = (bytes: Uint8Array): Search => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, SEARCHED_BYTES))
  let wrong: Search = { _tag: "Missing" }
  for (let offset = 0; offset + Identification.size <= view.byteLength; offset += 4) {
    if (view.getUint32(offset, true) !== MAGIC) continue
    const flags = view.getUint32(offset + Identification.offsets.flags, true)
    const checksum = view.getUint32(offset + Identification.offsets.checksum, true)
    if (sumIsZero(MAGIC, flags, checksum)) return { _tag: "Found", offset, flags }
    if (wrong._tag === "Missing") {
      wrong = { _tag: "BadChecksum", offset, checksum, expected: -(MAGIC + flags) >>> 0 }
    }
  }
  return wrong
}

const isMultiboot2 = (bytes: Uint8Array): boolean => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, SEARCHED_BYTES_2))
  for (let offset = 0; offset + 16 <= view.byteLength; offset += 8) {
    if (view.getUint32(offset, true) !== MAGIC_2) continue
    if (sumIsZero(...[0, 4, 8, 12].map((field) => view.getUint32(offset + field, true)))) return true
  }
  return false
}

export const isMultiboot = (bytes: Uint8Array): boolean => search(bytes)._tag === "Found"

const refuse = (source: Source, found: Exclude<Search, { readonly _tag: "Found" }>) => {
  const advice = "give a kernel with a Multiboot (version 1) header"
  if (found._tag === "BadChecksum") {
    const expected = `the checksum ${hex(found.expected)} of a Multiboot header`
    const at = found.offset + Identification.offsets.checksum
    return source.wrongFormat(at, expected, hex(found.checksum), "make magic, flags and checksum add up to 0")
  }
  const where = `the Multiboot magic ${hex(MAGIC)} in the first ${SEARCHED_BYTES} bytes`
  return isMultiboot2(source.bytes)
    ? source.wrongFormat(0, where, "a Multiboot 2 header", `${advice}, which it can have beside the other`)
    : source.wrongFormat(0, where, "none on a multiple of 4", advice)
}

const checkFlags = (source: Source, offset: number, flags: number): Result.Result<void, ImageError> => {
  const unknown = flags & REQUIREMENTS & ~(MODULES_ON_PAGES | MEMORY_INFORMATION)
  if (unknown === 0) return Result.void
  const at = offset + Identification.offsets.flags
  const advice = unknown === VIDEO_MODE
    ? "build it without bit 2, which asks for a video mode: there is no display"
    : `build it without bits ${hex(unknown)}, which ask for what this loader does not have`
  return source.unsupported("flags", at, "no requirements but bits 0 and 1", hex(flags), advice)
}

/** The kernel by the header's own addresses: one run of the file that the header lies in. */
const byAddresses = (source: Source, offset: number, reach: number): Result.Result<Kernel, ImageError> =>
  Result.gen(function*() {
    const { bytes, name } = source
    if (offset + Addresses.size > SEARCHED_BYTES) {
      const expected = `a header that ends by ${hex(SEARCHED_BYTES)}, its address fields included`
      const advice = "put the header nearer to the beginning of the file"
      return yield* source.unsupported("the Multiboot header", offset, expected, `one at ${hex(offset)}`, advice)
    }
    const header = yield* source.decode(Addresses, "the Multiboot header", offset)
    const unsupported = (field: keyof typeof header, expected: string) =>
      source.unsupported(
        field,
        offset + Addresses.offsets[field],
        expected,
        hex(header[field]),
        "correct the header, or leave out bit 16 of its flags and give an ELF file"
      )

    const { bss_end_addr: bssEnd, entry_addr: entry, header_addr: headerAddress, load_addr: start } = header
    const begin = offset - (headerAddress - start)
    if (start > headerAddress || begin < 0) {
      const lowest = headerAddress - offset
      return yield* unsupported("load_addr", `an address from ${hex(Math.max(0, lowest))} to header_addr`)
    }
    const loadEnd = header.load_end_addr === 0 ? start + bytes.length - begin : header.load_end_addr
    if (loadEnd <= start) return yield* unsupported("load_end_addr", `0, or more than load_addr, ${hex(start)}`)
    const fileEnd = begin + loadEnd - start
    if (fileEnd > bytes.length) return yield* source.truncated("the kernel (load_end_addr - load_addr)", fileEnd)
    if (bssEnd !== 0 && bssEnd < loadEnd) {
      return yield* unsupported("bss_end_addr", `0, or at least the end of what is loaded, ${hex(loadEnd)}`)
    }
    const end = Math.max(loadEnd, bssEnd)
    if (end > reach) {
      return yield* fail({
        _tag: "DoesNotFit",
        file: name,
        what: "the kernel",
        bytes: end - start,
        from: start,
        to: reach,
        needed: reachable(end)
      })
    }
    if (entry < start || entry >= loadEnd) {
      return yield* unsupported("entry_addr", `an address inside what is loaded, ${hex(start)} to ${hex(loadEnd - 1)}`)
    }
    const segment = {
      name,
      address: GuestAddress.make(start),
      bytes: bytes.subarray(begin, fileEnd),
      zeroBytes: end - loadEnd
    }
    return { segments: [segment], entry }
  })

export const parse = (name: string, bytes: Uint8Array, reach: number): Result.Result<Kernel, ImageError> =>
  Result.gen(function*() {
    const source = new Source(name, bytes)
    const found = search(bytes)
    if (found._tag !== "Found") return yield* refuse(source, found)
    const { flags, offset } = found
    yield* checkFlags(source, offset, flags)
    if ((flags & HAS_ADDRESSES) !== 0) return yield* byAddresses(source, offset, reach)
    if (ElfFile.isElf(bytes)) return yield* ElfFile.parse(name, bytes, reach)
    const expected = "an ELF file, since bit 16 of the Multiboot header's flags is clear,"
    return yield* source.wrongFormat(0, expected, "another kind", "set bit 16 and give addresses, or link it as ELF")
  })
