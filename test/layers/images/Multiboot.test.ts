import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import type { ImagePlan } from "../../../src/domain/ImagePlan.ts"
import * as Multiboot from "../../../src/layers/images/Multiboot.ts"
import * as Binutils from "./binutils.ts"
import { assertSound, elf, MiB, multibootHeader, refusal, soundOrRefused } from "./support.ts"

type Changes = Partial<Omit<Multiboot.Options, "kernel">>

const HAS_ADDRESSES = 1 << 16
const START = 0x10_0000

/** A kernel without ELF: the header at its offset 16, code behind it. */
const flat = (...fields: ReadonlyArray<number>): Uint8Array => {
  const bytes = new Uint8Array(0x1000).fill(0xf4)
  bytes.set(multibootHeader(HAS_ADDRESSES, ...fields), 16)
  return bytes
}

// header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr
const usual = [START + 16, START, START + 0x800, START + 0x2000, START + 48] as const

const plan = (bytes: Uint8Array, options: Changes = {}) =>
  Multiboot.plan({ kernel: { name: "kernel", bytes }, memoryBytes: 4 * MiB, ...options })

/** Guest memory as the plan leaves it, read by address. */
const memoryOf = (made: ImagePlan) => {
  const find = (address: number) => {
    const segment = made.segments.find((one) => address >= one.address && address < one.address + one.bytes.length)
    assert(segment !== undefined, `nothing at ${address.toString(16)}`)
    return { view: new DataView(segment.bytes.buffer, segment.bytes.byteOffset), at: address - segment.address }
  }
  const word = (address: number) => {
    const { at, view } = find(address)
    return view.getUint32(at, true)
  }
  const wide = (address: number) => word(address) + word(address + 4) * 2 ** 32
  const text = (address: number) => {
    const { at, view } = find(address)
    let end = at
    while (view.getUint8(end) !== 0) end++
    return new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at, end - at))
  }
  return { word, wide, text }
}

describe("Multiboot", () => {
  it.effect("loads a kernel by the addresses in its header", () =>
    Effect.gen(function*() {
      const file = flat(...usual)
      const made = yield* plan(file)
      assertSound(made, 4 * MiB)
      const [kernel] = made.segments
      assert.strictEqual(kernel!.address, START)
      assert.strictEqual(kernel!.zeroBytes, 0x1800)
      assert.deepStrictEqual(kernel!.bytes, file.subarray(0, 0x800))
      assert.strictEqual(made.registers.rip, BigInt(START + 48))
      assert.strictEqual(made.registers.gprs.rax, 0x2bad_b002n)
      assert.strictEqual(made.registers.cr0 & 0x8000_0001n, 1n, "protected, not paged")
      assert.strictEqual(made.registers.rflags & 0x200n, 0n, "interrupts off")
    }))

  it.effect("loads from the header on, to the end of the file, without .bss, when the fields say so", () =>
    Effect.gen(function*() {
      const file = flat(START, START, 0, 0, START + 32)
      const made = yield* plan(file)
      assert.deepStrictEqual(made.segments[0]!.bytes, file.subarray(16))
      assert.strictEqual(made.segments[0]!.zeroBytes, 0)
    }))

  for (const bits of [32, 64] as const) {
    it.effect(`loads a ${bits}-bit ELF kernel, and starts it in 32-bit mode`, () =>
      Effect.gen(function*() {
        const made = yield* plan(elf({ bits, put: [[0x1000, multibootHeader(0)]], entry: START + 12 }))
        assertSound(made, 4 * MiB)
        assert.strictEqual(made.segments[0]!.address, START)
        assert.strictEqual(made.registers.rip, BigInt(START + 12))
        assert.strictEqual(made.registers.ia32Efer, 0n)
      }))
  }

  it.effect("takes the header's addresses rather than ELF's", () =>
    Effect.gen(function*() {
      const header = multibootHeader(HAS_ADDRESSES, 0x20_0000, 0x20_0000, 0, 0, 0x20_0020)
      const made = yield* plan(elf({ put: [[0x1000, header]] }))
      assert.strictEqual(made.segments[0]!.address, 0x20_0000)
    }))

  it.effect("finds the first header with a right checksum, up to the last place it may have", () =>
    Effect.gen(function*() {
      const file = new Uint8Array(0x3000)
      file.set(multibootHeader(0).fill(0, 8), 0x100)
      file.set(multibootHeader(HAS_ADDRESSES, START, START, 0, 0, START), 8192 - 32)
      assert.strictEqual((yield* plan(file)).registers.rip, BigInt(START))
      assert.isTrue(Multiboot.isMultiboot(file))
      assert.isTrue(Multiboot.isMultiboot(multibootHeader(0)))
      assert.isFalse(Multiboot.isMultiboot(multibootHeader(0).subarray(0, 11)))
      for (const shift of [1, 2, 3]) {
        const moved = new Uint8Array(64)
        moved.set(multibootHeader(0), shift)
        assert.isFalse(Multiboot.isMultiboot(moved), "not on a multiple of 4")
      }
      const late = new Uint8Array(0x3000)
      late.set(multibootHeader(0), 8192 - 8)
      assert.isFalse(Multiboot.isMultiboot(late))
    }))

  it.effect("tells the kernel everything that its flags say it does", () =>
    Effect.gen(function*() {
      const modules = [
        { name: "initrd", bytes: new Uint8Array(5000).fill(1) },
        { name: "config", bytes: new Uint8Array(10).fill(2), commandLine: "config größe=3" }
      ]
      const made = yield* plan(flat(...usual), { commandLine: "kernel quiet", modules })
      assertSound(made, 4 * MiB)
      const { text, wide, word } = memoryOf(made)
      const info = Number(made.registers.gprs.rbx)
      assert.strictEqual(word(info), 0x24d)
      assert.strictEqual(word(info + 4), 639, "mem_lower, KiB")
      assert.strictEqual(word(info + 8), 3 * 1024, "mem_upper, KiB")
      assert.strictEqual(text(word(info + 16)), "kernel quiet")
      assert.strictEqual(text(word(info + 64)), "Upcall")

      const placed = Array.from({ length: word(info + 20) }, (_, index) => {
        const at = word(info + 24) + index * 16
        return [word(at), word(at + 4), text(word(at + 8)), word(at + 12)]
      })
      assert.deepStrictEqual(placed, [
        [START + 0x2000, START + 0x2000 + 5000, "initrd", 0],
        [START + 0x4000, START + 0x400a, "config größe=3", 0]
      ])
      for (const module of modules) {
        assert.isTrue(made.segments.some(({ bytes }) => bytes === module.bytes), "not copied")
      }

      const map: Array<ReadonlyArray<number>> = []
      const end = word(info + 48) + word(info + 44)
      for (let at = word(info + 48); at < end; at += word(at) + 4) {
        map.push([wide(at + 4), wide(at + 12), word(at + 20)])
      }
      assert.deepStrictEqual(map, [
        [0, 0x9_fc00, 1],
        [0x9_fc00, 0x400, 2],
        [0xf_0000, 0x1_0000, 2],
        [0x10_0000, 3 * MiB, 1]
      ])
    }))

  it.effect("fits a module into all that is left above the kernel, and not a byte more", () =>
    Effect.gen(function*() {
      const left = 4 * MiB - START - 0x2000
      const withModule = (bytes: number) =>
        plan(flat(...usual), { modules: [{ name: "initrd", bytes: new Uint8Array(bytes) }] })
      const made = yield* withModule(left)
      assertSound(made, 4 * MiB)
      assert.strictEqual(made.registers.gprs.rsp, BigInt(START), "the stack is below the kernel then")
      assert.include(yield* refusal(withModule(left + 1)), "give the VM at least 4198400 bytes")
    }))

  it.effect("tells of less memory than 1 MiB, and of more than 4 TiB", () =>
    Effect.gen(function*() {
      const low = flat(0x8010, 0x8000, 0, 0, 0x8030)
      const small = yield* plan(low, { memoryBytes: 0x1_0000 })
      const info = Number(small.registers.gprs.rbx)
      assert.deepStrictEqual([4, 8, 44].map((at) => memoryOf(small).word(info + at)), [64, 0, 24])
      const large = yield* plan(low, { memoryBytes: 2 ** 43 })
      const { wide, word } = memoryOf(large)
      const at = Number(large.registers.gprs.rbx)
      assert.strictEqual(word(at + 8), 0xffff_ffff)
      assert.strictEqual(wide(word(at + 48) + 3 * 24 + 12), 2 ** 43 - MiB)
      assert.isBelow(Number(large.registers.gprs.rsp), 2 ** 32)
    }))

  const cases: ReadonlyArray<readonly [name: string, made: ReturnType<typeof plan>, message: string]> = [
    ["no bytes", plan(new Uint8Array()), "kernel is empty"],
    [
      "an ELF file without a header",
      plan(elf()),
      "kernel: expected the Multiboot magic 0x1badb002 in the first 8192 bytes at offset 0x0, found none on a multiple " +
      "of 4; it looks like an ELF file; give a kernel with a Multiboot (version 1) header"
    ],
    ["packed data", plan(Uint8Array.of(0x1f, 0x8b, 8, 0)), "it looks like gzip data; unpack it first"],
    [
      "a Multiboot 2 kernel",
      plan(new Uint8Array(Uint32Array.of(0, 0, 0xe852_50d6, 0, 24, -(0xe852_50d6 + 24), 0, 8).buffer)),
      "found a Multiboot 2 header; give a kernel with a Multiboot (version 1) header, which it can have beside"
    ],
    [
      "a wrong checksum",
      plan(new Uint8Array(Uint32Array.of(0x1bad_b002, 3, 7).buffer)),
      "kernel: expected the checksum 0xe4524ffb of a Multiboot header at offset 0x8, found 0x7; make magic, flags and"
    ],
    [
      "wrong checksums, of which it shows the first",
      plan(new Uint8Array(Uint32Array.of(0x1bad_b002, 3, 7, 0x1bad_b002, 3, 8).buffer)),
      "at offset 0x8, found 0x7;"
    ],
    [
      "a kernel that wants video",
      plan(multibootHeader(1 << 2)),
      "flags at offset 0x4 is 0x4, expected no requirements but bits 0 and 1; build it without bit 2, which asks for a"
    ],
    ["unknown requirements", plan(multibootHeader(0x8004)), "build it without bits 0x8004, which ask for what"],
    [
      "neither ELF nor addresses",
      plan(multibootHeader(3)),
      "kernel: expected an ELF file, since bit 16 of the Multiboot header's flags is clear, at offset 0x0, found another"
    ],
    [
      "ELF for another machine",
      plan(elf({ machine: 40, put: [[0x1000, multibootHeader(0)]] })),
      "e_machine at offset 0x12 is Arm (40)"
    ],
    [
      "address fields beyond the end of the file",
      plan(multibootHeader(HAS_ADDRESSES)),
      "kernel ends after 12 bytes, but by its header the Multiboot header ends at byte 32"
    ],
    [
      "address fields beyond 8 KiB",
      plan(Uint8Array.from([...new Uint8Array(8192 - 28), ...multibootHeader(HAS_ADDRESSES, 0, 0, 0, 0, 0)])),
      "the Multiboot header at offset 0x1fe4 is one at 0x1fe4, expected a header that ends by 0x2000"
    ],
    [
      "a load address above the header's",
      plan(flat(START, START + 4, 0, 0, START)),
      "load_addr at offset 0x20 is 0x100004, expected an address from 0xffff0 to header_addr; correct the header"
    ],
    [
      "a load address before the file",
      plan(flat(START + 17, START, 0, 0, START)),
      "load_addr at offset 0x20 is 0x100000, expected an address from 0x100001 to header_addr"
    ],
    [
      "an end before the start",
      plan(flat(START + 16, START, START, 0, START)),
      "load_end_addr at offset 0x24 is 0x100000, expected 0, or more than load_addr, 0x100000"
    ],
    [
      "more than the file has",
      plan(flat(START + 16, START, START + 0x1001, 0, START)),
      "the kernel (load_end_addr - load_addr) ends at byte 4097; get the whole file again"
    ],
    [
      "a .bss that ends too early",
      plan(flat(START + 16, START, START + 0x800, START + 0x7ff, START)),
      "bss_end_addr at offset 0x28 is 0x1007ff, expected 0, or at least the end of what is loaded, 0x100800"
    ],
    [
      "an entry point outside",
      plan(flat(START + 16, START, START + 0x800, 0, START + 0x800)),
      "entry_addr at offset 0x2c is 0x100800, expected an address inside what is loaded, 0x100000 to 0x1007ff"
    ],
    [
      "an entry point before it",
      plan(flat(START + 16, START, START + 0x800, 0, START - 1)),
      "entry_addr at offset 0x2c is 0xfffff, expected an address inside what is loaded, 0x100000 to 0x1007ff"
    ],
    [
      "a kernel beyond the memory",
      plan(flat(START + 16, START, 0, 8 * MiB, START)),
      "kernel: the kernel needs 7340032 bytes in guest memory from 0x100000 up to 0x400000, where only 3145728 are; " +
      "give the VM at least 8388608 bytes of memory, or a smaller image"
    ],
    [
      "a module beyond the memory",
      plan(flat(...usual), { modules: [{ name: "initrd", bytes: new Uint8Array(3 * MiB) }] }),
      "initrd: the module, above the kernel and on a page boundary, needs 3145728 bytes in guest memory from 0x102000 " +
      "up to 0x400000, where only 3137536 are; give the VM at least 4202496 bytes"
    ],
    [
      "an empty module",
      plan(flat(...usual), { modules: [{ name: "initrd", bytes: new Uint8Array() }] }),
      "initrd is empty"
    ],
    ["a command line cut by a zero", plan(flat(...usual), { commandLine: "a\0b" }), "has a zero character at 1"],
    [
      "texts that fill the memory",
      plan(flat(...usual), { commandLine: "x".repeat(4 * MiB) }),
      "kernel: the Multiboot information with its texts needs 4194"
    ],
    ["memory that is no pages", plan(flat(...usual), { memoryBytes: 1 }), "memoryBytes is 1; pass a multiple of 4096"]
  ]
  for (const [name, made, message] of cases) {
    it.effect(`refuses ${name}`, () =>
      Effect.gen(function*() {
        assert.include(yield* refusal(made), message)
      }))
  }

  it.effect.skipIf(Binutils.skipped !== "")(
    `plans what the system's tools make${Binutils.skipped}`,
    () =>
      Effect.gen(function*() {
        const made = yield* plan(Binutils.linked("multiboot.s", 32))
        assertSound(made, 4 * MiB)
        assert.isAtLeast(Math.max(...made.segments.map(({ zeroBytes = 0 }) => zeroBytes)), 0x2_0004)
      })
  )

  const extreme = [0, 1, 16, 0x1000, START - 16, START, START + 16, START + 0x800, START + 0x1000, 4 * MiB, 0xffff_ffff]
  const word = Arbitrary.schema(Schema.Literals(extreme))
  const small = (maximum: number) => Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum })))
  const options = {
    commandLine: Arbitrary.schema(Schema.String),
    modules: Arbitrary.array(
      Arbitrary.map(small(0x3000), (length) => ({ name: "module", bytes: new Uint8Array(length) })),
      { minLength: 0, maxLength: 4 }
    ),
    memoryBytes: Arbitrary.schema(Schema.Literals([0x1000, 0x2000, 0x1_0000, MiB, 4 * MiB, 2 ** 32, 2 ** 52]))
  }
  const runs = { arbitrary: { runs: 1000 } }

  it.effect.prop(
    "any addresses give a plan inside the memory or a typed error",
    { fields: Arbitrary.all([word, word, word, word, word]), ...options },
    ({ fields, ...rest }) => soundOrRefused(plan(flat(...fields), rest), rest.memoryBytes),
    runs
  )

  const rarely = Arbitrary.map(Arbitrary.all([small(3), word]), ([chance, value]) => chance === 0 ? value : undefined)
  it.effect.prop(
    "any address of a good header, set to an extreme, gives a plan inside the memory or a typed error",
    { fields: Arbitrary.all([rarely, rarely, rarely, rarely, rarely]), ...options },
    ({ fields, ...rest }) =>
      soundOrRefused(plan(flat(...fields.map((field, index) => field ?? usual[index]!)), rest), rest.memoryBytes),
    runs
  )

  it.effect.prop(
    "any good kernel with anything beside it gives a plan inside the memory or a typed error",
    { start: small(0x1_0000), load: small(0x1000), bss: small(0x8000), entry: small(0xfff), ...options },
    ({ bss, entry, load, start, ...rest }) => {
      const end = start + Math.max(1, load)
      const fields = [start + 16, start, load === 0 ? 0 : end, bss === 0 ? 0 : end + bss, start + entry]
      return soundOrRefused(plan(flat(...fields), rest), rest.memoryBytes)
    },
    runs
  )

  it.effect.prop(
    "any bytes give a plan inside the memory or a typed error",
    { flags: small(0x2_0007), before: small(0x200), bytes: Schema.Uint8Array, length: small(0x400), ...options },
    ({ before, bytes, flags, length, ...rest }) => {
      const file = Uint8Array.from([...new Uint8Array(before * 4), ...multibootHeader(flags), ...bytes])
      return soundOrRefused(plan(file.subarray(0, length + before * 4), rest), rest.memoryBytes)
    },
    runs
  )

  it.effect("takes no longer for a file full of headers", () =>
    Effect.gen(function*() {
      const file = new Uint8Array(Uint32Array.from({ length: 1 << 20 }, () => 0x1bad_b002).buffer)
      assert.include(yield* refusal(plan(file)), "expected the checksum")
    }))
})
