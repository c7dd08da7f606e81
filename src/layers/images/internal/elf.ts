/**
 * ELF executables: the headers, read and checked, and the segments they ask for. Source: System V ABI, generic part,
 * chapters 4 and 5, and its supplements for i386 and x86-64; names are those of the documents.
 */
import * as Result from "effect/Result"
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { GuestAddress, hex } from "../../../domain/Address.ts"
import type { ImageSegment } from "../../../domain/ImagePlan.ts"
import type { ImageError } from "../ImageError.ts"
import { fail } from "./options.ts"
import { findOverlap, REACH, reachable } from "./placement.ts"
import { damaged, Source } from "./source.ts"

const IDENT_BYTES = 16

const headerOf = <Word extends number | bigint>(name: string, word: (cName: string) => Field.Field<Word>) =>
  Layout.struct(name, {
    e_ident: Field.bytes("e_ident", IDENT_BYTES),
    e_type: Field.u16("e_type"),
    e_machine: Field.u16("e_machine"),
    e_version: Field.u32("e_version"),
    e_entry: word("e_entry"),
    e_phoff: word("e_phoff"),
    e_shoff: word("e_shoff"),
    e_flags: Field.u32("e_flags"),
    e_ehsize: Field.u16("e_ehsize"),
    e_phentsize: Field.u16("e_phentsize"),
    e_phnum: Field.u16("e_phnum"),
    e_shentsize: Field.u16("e_shentsize"),
    e_shnum: Field.u16("e_shnum"),
    e_shstrndx: Field.u16("e_shstrndx")
  })

const Elf32Program = Layout.struct("Elf32_Phdr", {
  p_type: Field.u32("p_type"),
  p_offset: Field.u32("p_offset"),
  p_vaddr: Field.u32("p_vaddr"),
  p_paddr: Field.u32("p_paddr"),
  p_filesz: Field.u32("p_filesz"),
  p_memsz: Field.u32("p_memsz"),
  p_flags: Field.u32("p_flags"),
  p_align: Field.u32("p_align")
})

const Elf64Program = Layout.struct("Elf64_Phdr", {
  p_type: Field.u32("p_type"),
  p_flags: Field.u32("p_flags"),
  p_offset: Field.u64("p_offset"),
  p_vaddr: Field.u64("p_vaddr"),
  p_paddr: Field.u64("p_paddr"),
  p_filesz: Field.u64("p_filesz"),
  p_memsz: Field.u64("p_memsz"),
  p_align: Field.u64("p_align")
})

const EI_CLASS = 4
const EI_DATA = 5
const EI_VERSION = 6
const LITTLE_ENDIAN = 1
const CURRENT_VERSION = 1
const TYPE_EXECUTABLE = 2

const classes = {
  1: {
    bits: 32,
    machine: 3,
    machineName: "EM_386 (3)",
    header: headerOf("Elf32_Ehdr", Field.u32),
    program: Elf32Program
  },
  2: {
    bits: 64,
    machine: 62,
    machineName: "EM_X86_64 (62)",
    header: headerOf("Elf64_Ehdr", Field.u64),
    program: Elf64Program
  }
} as const

const PT_LOAD = 1
/** What only a dynamic linker can serve. */
const DYNAMIC_TYPES: ReadonlyMap<number, string> = new Map([[2, "PT_DYNAMIC (2)"], [3, "PT_INTERP (3)"]])

/** Linkers make a handful; Linux's own vmlinux has five. */
const MAX_PROGRAMS = 128

const linkStatically = "link it statically at a fixed address (gcc -static -no-pie, ld without -pie and -shared)"

const linkAsProgram = "link it as a program (ld)"

const typeNames: Readonly<Record<number, { readonly name: string; readonly advice: string }>> = {
  1: { name: "ET_REL (1), an object file", advice: "link it first (ld -o FILE)" },
  3: { name: "ET_DYN (3), a shared object or position-independent program", advice: linkStatically },
  4: { name: "ET_CORE (4), a core dump", advice: "give the program itself" }
}

const machineNames: Readonly<Record<number, string>> = {
  2: "SPARC",
  3: "EM_386",
  8: "MIPS",
  20: "PowerPC",
  21: "64-bit PowerPC",
  22: "S390",
  40: "Arm",
  62: "EM_X86_64",
  183: "64-bit Arm",
  243: "RISC-V",
  258: "LoongArch"
}

export interface ElfImage {
  readonly bits: 32 | 64
  /** None of which overlap. */
  readonly segments: ReadonlyArray<ImageSegment>
  /** The guest physical address of the first instruction, which is among some segment's bytes. */
  readonly entry: number
}

interface Program {
  readonly segment: ImageSegment
  readonly start: number
  readonly end: number
  /** Where it was linked to run. */
  readonly virtual: bigint
}

export const isElf = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46

const readClass = (file: Source): Result.Result<1 | 2, ImageError> => {
  const { bytes } = file
  if (!isElf(bytes)) {
    const found = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join(" ")
    return file.wrongFormat(0, "the ELF magic 7f 45 4c 46", found, "give a static ELF executable for x86")
  }
  if (bytes.length < IDENT_BYTES) return file.truncated("e_ident", IDENT_BYTES)
  const elfClass = bytes[EI_CLASS]
  if (elfClass !== 1 && elfClass !== 2) {
    return file.unsupported("e_ident[EI_CLASS]", EI_CLASS, "1 (32-bit) or 2 (64-bit)", String(elfClass), damaged)
  }
  if (bytes[EI_DATA] !== LITTLE_ENDIAN) {
    const found = bytes[EI_DATA] === 2 ? "2 (big-endian)" : String(bytes[EI_DATA])
    const advice = "build it for x86, which is little-endian"
    return file.unsupported("e_ident[EI_DATA]", EI_DATA, "1 (little-endian)", found, advice)
  }
  if (bytes[EI_VERSION] !== CURRENT_VERSION) {
    return file.unsupported("e_ident[EI_VERSION]", EI_VERSION, "1", String(bytes[EI_VERSION]), damaged)
  }
  return Result.succeed(elfClass)
}

/** What of the header is used. The 64-bit fields may be rounded, but only far above any file and any memory. */
interface Header {
  readonly entry: bigint
  readonly tableAt: number
  readonly programs: number
}

const readHeader = (file: Source, elfClass: 1 | 2): Result.Result<Header, ImageError> =>
  Result.gen(function*() {
    const { bits, machine, machineName, program } = classes[elfClass]
    const layout: Layout.Struct = classes[elfClass].header
    const head = yield* (elfClass === 1
      ? file.decode(classes[1].header, "the ELF header")
      : file.decode(classes[2].header, "the ELF header"))
    const unsupported = (field: keyof typeof head, expected: string, found: string, advice: string) =>
      file.unsupported(field, layout.offsets[field]!, expected, found, advice)

    const { e_machine, e_phentsize, e_phnum, e_type } = head
    if (e_machine !== machine) {
      const name = machineNames[e_machine]
      const found = name === undefined ? String(e_machine) : `${name} (${e_machine})`
      const expected = `${machineName} in a ${bits}-bit file`
      return yield* unsupported("e_machine", expected, found, `build it for ${bits}-bit x86`)
    }
    if (e_type !== TYPE_EXECUTABLE) {
      const { advice, name } = typeNames[e_type] ?? { name: String(e_type), advice: linkStatically }
      return yield* unsupported("e_type", "ET_EXEC (2), a program at a fixed address", name, advice)
    }
    if (e_phnum === 0) {
      return yield* unsupported("e_phnum", `1 to ${MAX_PROGRAMS}`, "0", linkAsProgram)
    }
    if (e_phnum > MAX_PROGRAMS) {
      const advice = "link it with fewer segments"
      return yield* unsupported("e_phnum", `1 to ${MAX_PROGRAMS}`, String(e_phnum), advice)
    }
    if (e_phentsize !== program.size) {
      return yield* unsupported("e_phentsize", String(program.size), String(e_phentsize), damaged)
    }
    const tableAt = Number(head.e_phoff)
    const tableEnd = tableAt + e_phnum * program.size
    if (tableEnd > file.bytes.length) return yield* file.truncated("the program header table", tableEnd)
    return { entry: BigInt(head.e_entry), tableAt, programs: e_phnum }
  })

/** One program header, or nothing if it asks for no memory. */
const readProgram = (
  file: Source,
  elfClass: 1 | 2,
  index: number,
  at: number,
  reach: number
): Result.Result<Program | undefined, ImageError> =>
  Result.gen(function*() {
    const layout: Layout.Struct = classes[elfClass].program
    const part = `program header ${index}`
    const entry = yield* (elfClass === 1
      ? file.decode(Elf32Program, part, at)
      : file.decode(Elf64Program, part, at))
    const unsupported = (field: keyof typeof entry, expected: string, found: string, advice: string) =>
      file.unsupported(`${field} of ${part}`, at + layout.offsets[field]!, expected, found, advice)

    const dynamic = DYNAMIC_TYPES.get(entry.p_type)
    if (dynamic !== undefined) {
      return yield* unsupported("p_type", "nothing for a dynamic linker", dynamic, linkStatically)
    }
    const [offset, address] = [Number(entry.p_offset), Number(entry.p_paddr)]
    const [fileBytes, size] = [Number(entry.p_filesz), Number(entry.p_memsz)]
    if (entry.p_type !== PT_LOAD || (size === 0 && fileBytes === 0)) return undefined
    const name = `segment ${index}`
    if (fileBytes > size) {
      return yield* unsupported("p_memsz", `at least p_filesz, ${hex(entry.p_filesz)}`, hex(entry.p_memsz), damaged)
    }
    if (offset + fileBytes > file.bytes.length) return yield* file.truncated(name, offset + fileBytes)
    const end = address + size
    if (end > REACH) {
      const expected = `a load address from which ${hex(entry.p_memsz)} bytes end by 4 GiB`
      const advice = "link it lower, or give it load addresses of their own (AT in the linker script)"
      return yield* unsupported("p_paddr", expected, hex(entry.p_paddr), advice)
    }
    if (end > reach) {
      const needed = reachable(end)
      return yield* fail({
        _tag: "DoesNotFit",
        file: file.name,
        what: name,
        bytes: size,
        from: address,
        to: reach,
        needed
      })
    }
    const segment = {
      name: `${file.name} ${name}`,
      address: GuestAddress.make(address),
      bytes: file.bytes.subarray(offset, offset + fileBytes),
      zeroBytes: size - fileBytes
    }
    return { segment, start: address, end, virtual: BigInt(entry.p_vaddr) }
  })

/**
 * The entry point is a virtual address, so it is looked for where segments were linked to run and taken to where they
 * are. Linux, among others, puts a physical address there.
 */
const physicalEntry = (programs: ReadonlyArray<Program>, entry: bigint): number | undefined => {
  for (const base of [(program: Program) => program.virtual, (program: Program) => BigInt(program.start)]) {
    const found = programs.find((program) =>
      entry >= base(program) && entry - base(program) < BigInt(program.segment.bytes.length)
    )
    if (found !== undefined) return found.start + Number(entry - base(found))
  }
  return undefined
}

/**
 * Reads an executable whose segments go to RAM below `reach`. Whatever the bytes, this takes time for at most
 * `MAX_PROGRAMS` headers, and no memory for what they claim.
 */
export const parse = (name: string, bytes: Uint8Array, reach: number): Result.Result<ElfImage, ImageError> =>
  Result.gen(function*() {
    const file = new Source(name, bytes)
    const elfClass = yield* readClass(file)
    const { bits, header, program } = classes[elfClass]
    const { entry, programs: count, tableAt } = yield* readHeader(file, elfClass)
    const programs: Array<Program> = []
    for (let index = 0; index < count; index++) {
      const read = yield* readProgram(file, elfClass, index, tableAt + index * program.size, reach)
      if (read !== undefined) programs.push(read)
    }
    if (programs.length === 0) {
      const expected = "a count of program headers with a PT_LOAD among them that is not empty"
      return yield* file.unsupported("e_phnum", header.offsets.e_phnum, expected, String(count), linkAsProgram)
    }
    const overlap = findOverlap(programs)
    if (overlap !== undefined) {
      const [first, second] = overlap
      return yield* fail({
        _tag: "SegmentsOverlap",
        file: name,
        first: first.segment.name,
        second: second.segment.name,
        from: second.start,
        to: Math.min(first.end, second.end)
      })
    }
    const start = physicalEntry(programs, entry)
    if (start === undefined) {
      const expected = "an address among the bytes of a PT_LOAD segment"
      const advice = "link it with its entry point in the code (ENTRY in the linker script, or ld -e)"
      return yield* file.unsupported("e_entry", header.offsets.e_entry, expected, hex(entry), advice)
    }
    return { bits, entry: start, segments: programs.map(({ segment }) => segment) }
  })
