import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import * as Elf from "../../../src/layers/images/Elf.ts"
import * as Binutils from "./binutils.ts"
import { assertSound, elf, ELF_BYTES, type ElfProgram, MiB, refusal, soundOrRefused } from "./support.ts"

const GiB = 1024 * MiB

const plan = (bytes: Uint8Array, options: Partial<Elf.Options> = {}) =>
  Elf.plan({ name: "kernel.elf", bytes, memoryBytes: 4 * MiB, ...options })

const code: ElfProgram = { offset: 0x1000, vaddr: 0x10_0000, filesz: 0x800, memsz: 0x1800 }

const changed = (at: number, ...values: ReadonlyArray<number>): Uint8Array =>
  elf({ put: [[at, Uint8Array.from(values)]] })

describe("Elf", () => {
  for (const bits of [32, 64] as const) {
    it.effect(`plans a ${bits}-bit executable`, () =>
      Effect.gen(function*() {
        const file = elf({ bits, entry: 0x10_0004, programs: [code, { offset: 0, vaddr: 0x20_0000, memsz: 0x100 }] })
        const made = yield* plan(file)
        assertSound(made, 4 * MiB)
        const [text, bss] = made.segments
        assert.strictEqual(text!.address, 0x10_0000)
        assert.strictEqual(text!.zeroBytes, 0x1000)
        assert.deepStrictEqual(text!.bytes, file.subarray(0x1000, 0x1800))
        assert.strictEqual(text!.bytes.buffer, file.buffer, "not copied")
        assert.deepStrictEqual([bss!.address, bss!.bytes.length, bss!.zeroBytes], [0x20_0000, 0, 0x100])
        assert.strictEqual(made.registers.rip, 0x10_0004n)
        assert.strictEqual(made.registers.gprs.rsp, BigInt(4 * MiB))
        assert.strictEqual(made.segments.length, bits === 64 ? 4 : 2)
      }))
  }

  it.effect("starts 64-bit code with paging, SSE and long mode on", () =>
    Effect.gen(function*() {
      const { registers } = yield* plan(elf())
      assert.strictEqual(registers.cr0, 0x8000_0033n)
      assert.strictEqual(registers.cr4, 0x620n)
      assert.strictEqual(registers.ia32Efer, 0x500n)
      assert.strictEqual(registers.csAr, 0xa09b)
      assert.strictEqual(registers.rflags, 2n)
    }))

  it.effect("starts 32-bit code as FlatBinary does", () =>
    Effect.gen(function*() {
      const { registers } = yield* plan(elf({ bits: 32 }))
      assert.strictEqual(registers.cr0 & 0x8000_0001n, 1n)
      assert.deepStrictEqual([registers.csSel, registers.dsSel], [0x08, 0x10])
    }))

  it.effect("puts page tables and stack where the image is not", () =>
    Effect.gen(function*() {
      const low: ElfProgram = { ...code, vaddr: 0x1800, memsz: 0x800 }
      const high: ElfProgram = { ...code, vaddr: 4 * MiB - 0x2000, memsz: 0x2000 }
      const made = yield* plan(elf({ entry: 0x1800, programs: [low, high] }))
      assertSound(made, 4 * MiB)
      assert.strictEqual(made.registers.cr3, 0x2000n, "on the first page that is free")
      assert.strictEqual(made.registers.gprs.rsp, BigInt(4 * MiB - 0x2000))
    }))

  it.effect("keeps the page tables off a stack that was asked for", () =>
    Effect.gen(function*() {
      const made = yield* plan(elf(), { stack: 0x2000 })
      assert.strictEqual(made.registers.gprs.rsp, 0x2000n)
      assert.strictEqual(made.registers.cr3, 0x2000n)
    }))

  it.effect("fits into what it needs, and not into a page less", () =>
    Effect.gen(function*() {
      // One page of code at 0x8000, a stack above it, page tables and a descriptor table at 0x1000 to 0x7020.
      const bytes = elf({ entry: 0x8000, programs: [{ ...code, vaddr: 0x8000, memsz: 0x1000 }] })
      assertSound(yield* plan(bytes, { memoryBytes: 0xa000 }), 0xa000)
      assert.include(yield* refusal(plan(bytes, { memoryBytes: 0x9000 })), "a set of page tables for 64-bit mode")
      const flat = elf({ bits: 32, entry: 0, programs: [{ ...code, vaddr: 0, memsz: 0x1000 }] })
      assert.include(yield* refusal(plan(flat, { memoryBytes: 0x1000 })), "give the VM at least 8192 bytes")
    }))

  it.effect("takes the entry point to where its segment is loaded", () =>
    Effect.gen(function*() {
      const upper = 0xffff_ffff_8000_0000n
      const linked: ElfProgram = { ...code, vaddr: upper, paddr: 0x10_0000 }
      const moved = yield* plan(elf({ entry: upper + 4n, programs: [linked] }))
      assert.strictEqual(moved.registers.rip, 0x10_0004n)
      // As in Linux's vmlinux.
      const physical = yield* plan(elf({ entry: 0x10_0008, programs: [linked] }))
      assert.strictEqual(physical.registers.rip, 0x10_0008n)
      // A linked address wins over another segment's load address.
      const other: ElfProgram = { ...code, vaddr: upper, paddr: 0x20_0000 }
      const both = yield* plan(
        elf({ entry: 0x20_0000, programs: [other, { ...code, vaddr: 0x20_0000, paddr: 0x30_0000 }] })
      )
      assert.strictEqual(both.registers.rip, 0x30_0000n)
    }))

  it.effect("plans as much .bss as the memory holds without holding it", () =>
    Effect.gen(function*() {
      const bytes = elf({ programs: [{ ...code, memsz: 3 * GiB }] })
      const made = yield* plan(bytes, { memoryBytes: 4 * GiB })
      assertSound(made, 4 * GiB)
      assert.strictEqual(made.segments[0]!.zeroBytes, 3 * GiB - 0x800)
      assert.strictEqual(made.segments[0]!.bytes.length, 0x800)
    }))

  const two = (address: number) => elf({ programs: [code, { ...code, vaddr: address }] })
  const cases: ReadonlyArray<readonly [name: string, bytes: Uint8Array, message: string]> = [
    ["no bytes", new Uint8Array(), "kernel.elf is empty; see that it was read or downloaded whole"],
    [
      "another kind of file",
      Uint8Array.of(0x1f, 0x8b, 8, 0),
      "kernel.elf: expected the ELF magic 7f 45 4c 46 at offset 0x0, found 1f 8b 08 00; it looks like gzip data; " +
      "unpack it first and give what is inside"
    ],
    [
      "a kind that only LinuxBzImage has advice for",
      new TextEncoder().encode("070701".padEnd(64)),
      "kernel.elf: expected the ELF magic 7f 45 4c 46 at offset 0x0, found 30 37 30 37; it looks like a cpio archive; " +
      "give a static ELF executable for x86"
    ],
    ["four bytes", elf().subarray(0, 4), "kernel.elf ends after 4 bytes, but by its header e_ident ends at byte 16"],
    ["half a header", elf().subarray(0, 63), "the ELF header ends at byte 64; get the whole file again"],
    ["no program headers", elf().subarray(0, 100), "the program header table ends at byte 120"],
    ["half a segment", elf().subarray(0, 0x17ff), "segment 0 ends at byte 6144"],
    ["a class that is none", changed(4, 3), "e_ident[EI_CLASS] at offset 0x4 is 3, expected 1 (32-bit) or 2 (64-bit)"],
    [
      "a big-endian file",
      changed(5, 2),
      "e_ident[EI_DATA] at offset 0x5 is 2 (big-endian), expected 1 (little-endian); build it for x86"
    ],
    ["another version", changed(6, 2), "e_ident[EI_VERSION] at offset 0x6 is 2, expected 1"],
    [
      "another machine",
      elf({ machine: 183 }),
      "e_machine at offset 0x12 is 64-bit Arm (183), expected EM_X86_64 (62) in a 64-bit file; build it for 64-bit x86"
    ],
    [
      "64-bit code in a 32-bit file",
      elf({ bits: 32, machine: 62 }),
      "e_machine at offset 0x12 is EM_X86_64 (62), expected EM_386 (3) in a 32-bit file"
    ],
    ["an unknown machine", elf({ machine: 9999 }), "e_machine at offset 0x12 is 9999,"],
    [
      "an object file",
      elf({ type: 1 }),
      "e_type at offset 0x10 is ET_REL (1), an object file, expected ET_EXEC (2), a program at a fixed address; " +
      "link it first"
    ],
    ["a position-independent program", elf({ type: 3 }), "link it statically at a fixed address (gcc -static -no-pie"],
    ["a core dump", elf({ type: 4 }), "give the program itself"],
    ["an unknown type", elf({ type: 0xff00 }), "e_type at offset 0x10 is 65280"],
    [
      "an interpreter",
      elf({ programs: [code, { type: 3 }] }),
      "p_type of program header 1 at offset 0x78 is PT_INTERP (3), expected nothing for a dynamic linker; link it"
    ],
    ["dynamic linking", elf({ programs: [code, { type: 2 }] }), "is PT_DYNAMIC (2), expected nothing for a dynamic"],
    [
      "no program header",
      elf({ programs: [] }),
      "e_phnum at offset 0x38 is 0, expected 1 to 128; link it as a program"
    ],
    ["too many", changed(56, 129, 0), "e_phnum at offset 0x38 is 129, expected 1 to 128; link it with fewer segments"],
    ["headers of another size", changed(54, 32, 0), "e_phentsize at offset 0x36 is 32, expected 56"],
    [
      "nothing to load",
      elf({ programs: [{ type: 4 }] }),
      "a PT_LOAD among them that is not empty; link it as a program"
    ],
    [
      "a segment smaller than its bytes",
      elf({ programs: [{ ...code, memsz: 0x7ff }] }),
      "p_memsz of program header 0 at offset 0x68 is 0x7ff, expected at least p_filesz, 0x800; the file is damaged"
    ],
    [
      "a segment beyond the memory",
      elf({ programs: [{ ...code, memsz: 4 * MiB }] }),
      "kernel.elf: segment 0 needs 4194304 bytes in guest memory from 0x100000 up to 0x400000, where only 3145728 are; " +
      "give the VM at least 5242880 bytes of memory, or a smaller image"
    ],
    [
      "a kernel with load addresses in the upper half",
      elf({ programs: [{ ...code, vaddr: 0xffff_ffff_8000_0000n }] }),
      "p_paddr of program header 0 at offset 0x58 is 0xffffffff80000000, expected a load address from which 0x1800 " +
      "bytes end by 4 GiB; link it lower, or give it load addresses of their own (AT in the linker script)"
    ],
    [
      "segments that share a byte",
      two(0x10_17ff),
      "kernel.elf segment 0 and kernel.elf segment 1 both want guest memory 0x1017ff to 0x1017ff; link it so that"
    ],
    ["a segment inside another", two(0x10_0000), "both want guest memory 0x100000 to 0x1017ff"],
    [
      "an entry point in no segment",
      elf({ entry: 0xf_ffff }),
      "e_entry at offset 0x18 is 0xfffff, expected an address among the bytes of a PT_LOAD segment; link it with its"
    ],
    ["an entry point in .bss", elf({ entry: 0x10_0800 }), "e_entry at offset 0x18 is 0x100800"]
  ]
  for (const [name, bytes, message] of cases) {
    it.effect(`refuses ${name}`, () =>
      Effect.gen(function*() {
        assert.include(yield* refusal(plan(bytes)), message)
      }))
  }

  it.effect("refuses options that make no sense", () =>
    Effect.gen(function*() {
      assert.include(yield* refusal(plan(elf(), { memoryBytes: 5000 })), "memoryBytes is 5000; pass a multiple of 4096")
      assert.include(yield* refusal(plan(elf(), { stack: 3 })), "stack is 3; pass a multiple of 4 from 4 to 4194304")
    }))

  it.effect("leaves out segments without bytes, wherever they would go", () =>
    Effect.gen(function*() {
      const made = yield* plan(elf({ programs: [{ vaddr: 1n << 63n, offset: 1n << 63n }, code] }))
      assertSound(made, 4 * MiB)
      assert.strictEqual(made.segments[0]!.name, "kernel.elf segment 1")
    }))

  it.effect("takes segments that touch each other", () => Effect.asVoid(plan(two(0x10_1800))))

  it("tells an ELF file by its first bytes", () => {
    assert.isTrue(Elf.isElf(elf()))
    assert.isFalse(Elf.isElf(elf().subarray(0, 3)))
    assert.isFalse(Elf.isElf(changed(0, 0)))
  })

  describe.skipIf(Binutils.skipped !== "")(`with the system's tools${Binutils.skipped}`, () => {
    for (const [bits, source] of [[32, "multiboot.s"], [64, "long64.s"]] as const) {
      it.effect(`loads what readelf shows of a ${bits}-bit program`, () =>
        Effect.gen(function*() {
          const file = Binutils.linked(source, bits)
          const made = yield* plan(file)
          assertSound(made, 4 * MiB)
          const headers = Binutils.loadHeaders(source, bits)
          assert.isAbove(headers.length, 1)
          for (const [index, { address, fileBytes, memoryBytes, offset }] of headers.entries()) {
            const segment = made.segments[index]!
            assert.strictEqual(segment.address, address)
            assert.strictEqual(segment.bytes.length + segment.zeroBytes!, memoryBytes)
            assert.deepStrictEqual(segment.bytes, file.subarray(offset, offset + fileBytes))
          }
        }))
    }

    const refused: ReadonlyArray<readonly [name: string, bytes: () => Uint8Array, message: string]> = [
      ["an object file", () => Binutils.assembled("long64.s", 64), "ET_REL (1), an object file"],
      ["a position-independent program", () => Binutils.linked("long64.s", 64, "-pie"), "ET_DYN (3)"],
      ["a shared object", () => Binutils.linked("long64.s", 64, "-shared"), "ET_DYN (3)"],
      [
        "a program for the upper half without load addresses of its own",
        () =>
          Binutils.linked("long64.s", 64, "-Ttext=0xffffffff80100000 -Tdata=0xffffffff80200000 -z max-page-size=4096"),
        "link it lower"
      ]
    ]
    for (const [name, bytes, message] of refused) {
      it.effect(`refuses ${name}`, () =>
        Effect.gen(function*() {
          assert.include(yield* refusal(plan(bytes())), message)
        }))
    }

    it.effect("refuses a program cut off anywhere", () =>
      Effect.gen(function*() {
        const file = Binutils.linked("long64.s", 64)
        const { segments } = yield* plan(file)
        const end = Math.max(
          ...segments.map(({ bytes }) => bytes.buffer === file.buffer ? bytes.byteOffset + bytes.length : 0)
        )
        for (let length = 0; length < end - file.byteOffset; length += length < 0x200 ? 1 : 97) {
          yield* Effect.flip(plan(file.subarray(0, length)))
        }
      }))
  })

  const extreme = [
    0n,
    1n,
    0xfffn,
    0x1000n,
    0x2000n,
    0x10_0000n,
    0xffff_f000n,
    0xffff_ffffn,
    1n << 32n,
    1n << 52n,
    1n << 53n,
    (1n << 53n) + 1n,
    1n << 63n,
    (1n << 64n) - 0x1000n,
    (1n << 64n) - 1n
  ]
  const word = Arbitrary.schema(Schema.Literals(extreme))
  const small = (maximum: number) => Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum })))
  const memory = Arbitrary.schema(Schema.Literals([0x1000, 0x8000, 0x1_0000, MiB, 4 * MiB, 3 * GiB, 2 ** 32, 2 ** 52]))
  const program = Arbitrary.all({
    type: Arbitrary.schema(Schema.Literals([1, 1, 1, 1, 2, 3, 4, 0x6474_e551])),
    offset: word,
    vaddr: word,
    paddr: word,
    filesz: word,
    memsz: word
  })
  const runs = { arbitrary: { runs: 1000 } }

  it.effect.prop(
    "any header gives a plan inside the memory or a typed error",
    {
      bits: Arbitrary.schema(Schema.Literals([32, 64])),
      entry: word,
      programs: Arbitrary.array(program, { minLength: 0, maxLength: 6 }),
      memoryBytes: memory
    },
    ({ memoryBytes, ...header }) => soundOrRefused(plan(elf(header), { memoryBytes }), memoryBytes),
    runs
  )

  // Most fields as in a good file, so that a check that another one hides is met, too.
  const rarely = Arbitrary.map(Arbitrary.all([small(3), word]), ([chance, value]) => chance === 0 ? value : undefined)
  it.effect.prop(
    "any field of a good header, set to an extreme, gives a plan inside the memory or a typed error",
    {
      bits: Arbitrary.schema(Schema.Literals([32, 64])),
      entry: rarely,
      fields: Arbitrary.all({ offset: rarely, vaddr: rarely, paddr: rarely, filesz: rarely, memsz: rarely }),
      memoryBytes: memory
    },
    ({ bits, entry, fields, memoryBytes }) => {
      const set = Object.entries(fields).filter(([, value]) => value !== undefined)
      const file = elf({ bits, entry: entry ?? 0x10_0000, programs: [{ ...code, ...Object.fromEntries(set) }] })
      return soundOrRefused(plan(file, { memoryBytes }), memoryBytes)
    },
    runs
  )

  // Sizes and places in the range of a small file and memory, so that many files make a plan.
  const nearby = Arbitrary.map(
    Arbitrary.all({ offset: small(0x1c80), vaddr: small(0xffff), filesz: small(0x400), zeros: small(0x1000) }),
    ({ zeros, ...rest }): ElfProgram => ({ ...rest, memsz: rest.filesz + zeros })
  )
  it.effect.prop(
    "any segments in a small memory give a plan inside it or a typed error",
    {
      bits: Arbitrary.schema(Schema.Literals([32, 64])),
      entry: small(0x1_0000),
      inside: small(5),
      programs: Arbitrary.array(nearby, { minLength: 1, maxLength: 6 }),
      memoryBytes: Arbitrary.schema(Schema.Literals([0x1_0000, 0x1_8000, 0x2_0000]))
    },
    ({ inside, memoryBytes, ...header }) => {
      const entry = header.programs[inside % header.programs.length]?.vaddr ?? header.entry
      return soundOrRefused(plan(elf({ ...header, entry }), { memoryBytes }), memoryBytes)
    },
    runs
  )

  it.effect.prop(
    "any bytes changed in a good file give a plan inside the memory or a typed error",
    {
      bits: Arbitrary.schema(Schema.Literals([32, 64])),
      changes: Arbitrary.array(Arbitrary.all([small(0x78), small(0xff)]), { minLength: 1, maxLength: 4 }),
      length: small(2 * ELF_BYTES),
      memoryBytes: memory
    },
    ({ bits, changes, length, memoryBytes }) => {
      const put = changes.map(([at, value]) => [at, Uint8Array.of(value)] as const)
      return soundOrRefused(plan(elf({ bits, put }).subarray(0, length), { memoryBytes }), memoryBytes)
    },
    runs
  )

  it.effect.prop(
    "any bytes give a plan inside the memory or a typed error",
    { bytes: Schema.Uint8Array, isElf: Schema.Boolean, memoryBytes: memory },
    ({ bytes, isElf, memoryBytes }) => {
      const file = isElf ? Uint8Array.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...bytes]) : bytes
      return soundOrRefused(plan(file, { memoryBytes }), memoryBytes)
    },
    runs
  )
})
