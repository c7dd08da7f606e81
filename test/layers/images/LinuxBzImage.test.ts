import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { ImagePlan } from "../../../src/domain/ImagePlan.ts"
import * as LinuxBzImage from "../../../src/layers/images/LinuxBzImage.ts"
import { assertSound, bzImage, KERNEL_BYTES, MiB, refusal, SETUP_BYTES, soundOrRefused } from "./support.ts"

type Changes = Partial<Omit<LinuxBzImage.Options, "kernel" | "initrd">> & {
  readonly kernel?: Uint8Array
  readonly initrd?: Uint8Array
}

const plan = ({ initrd, kernel = bzImage(), ...options }: Changes = {}) =>
  LinuxBzImage.plan({
    kernel: { name: "vmlinuz", bytes: kernel },
    initrd: initrd && { name: "initrd.cpio", bytes: initrd },
    commandLine: "console=ttyS0",
    memoryBytes: 32 * MiB,
    ...options
  })

const segmentOf = (made: ImagePlan, name: string) => {
  const found = made.segments.find((segment) => segment.name === name)
  assert(found !== undefined, `the plan has no segment ${name}`)
  return found
}

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const fileOf = (text: string): Uint8Array => new TextEncoder().encode(text.padEnd(4096, "\0"))

describe("LinuxBzImage", () => {
  it.effect("starts the kernel as the 32-bit boot protocol wants", () =>
    Effect.gen(function*() {
      const made = yield* plan()
      assertSound(made, 32 * MiB)
      const { registers } = made
      assert.strictEqual(registers.rip, 0x10_0000n)
      assert.strictEqual(registers.gprs.rsi, BigInt(LinuxBzImage.addresses.zeroPage))
      assert.deepStrictEqual([registers.gprs.rbp, registers.gprs.rdi, registers.gprs.rbx], [0n, 0n, 0n])
      assert.deepStrictEqual([registers.csSel, registers.dsSel, registers.esSel, registers.ssSel], [16, 24, 24, 24])
      assert.strictEqual(registers.cr0 & 0x8000_0001n, 1n, "protected, not paged")

      const gdt = segmentOf(made, "GDT")
      assert.deepStrictEqual(registers.gdt, { base: BigInt(gdt.address), limit: gdt.bytes.length - 1 })
      // Flat: base 0, limit 0xfffff pages, present, ring 0, 32-bit; code that can be read, data that can be written.
      assert.strictEqual(view(gdt.bytes).getBigUint64(registers.csSel, true), 0x00cf_9b00_0000_ffffn)
      assert.strictEqual(view(gdt.bytes).getBigUint64(registers.dsSel, true), 0x00cf_9300_0000_ffffn)

      const kernel = segmentOf(made, "vmlinuz")
      assert.strictEqual(kernel.address, 0x10_0000)
      assert.deepStrictEqual(kernel.bytes, bzImage().subarray(SETUP_BYTES))
    }))

  it.effect("tells the kernel where everything is", () =>
    Effect.gen(function*() {
      const initrd = new Uint8Array(5000).fill(7)
      const made = yield* plan({ initrd, commandLine: "console=ttyS0 naïve" })
      const zeroPage = segmentOf(made, "zero page")
      const page = view(zeroPage.bytes)
      assert.strictEqual(zeroPage.bytes.length, 4096)
      assert.strictEqual(page.getUint32(0x202, true), 0x5372_6448, "the kernel's own header is kept")
      assert.strictEqual(page.getUint32(0x230, true), 0x100_0000, "to its last field")
      assert.strictEqual(page.getUint8(0x210), 0xff, "type_of_loader")
      assert.strictEqual(page.getUint8(0x211), 0x81, "LOADED_HIGH and CAN_USE_HEAP")
      assert.strictEqual(page.getUint32(0x214, true), 0x10_0000, "code32_start")

      const commandLine = segmentOf(made, "command line")
      assert.strictEqual(page.getUint32(0x228, true), commandLine.address)
      assert.deepStrictEqual(commandLine.bytes, new TextEncoder().encode("console=ttyS0 naïve\0"))

      const placed = segmentOf(made, "initrd.cpio")
      assert.strictEqual(placed.bytes, initrd, "not copied")
      assert.strictEqual(placed.address, 32 * MiB - 8192, "as high as whole pages go")
      assert.strictEqual(page.getUint32(0x218, true), placed.address)
      assert.strictEqual(page.getUint32(0x21c, true), 5000)

      const map = Array.from({ length: page.getUint8(0x1e8) }, (_, index) => {
        const at = 0x2d0 + index * 20
        return [page.getBigUint64(at, true), page.getBigUint64(at + 8, true), page.getUint32(at + 16, true)]
      })
      assert.deepStrictEqual(map, [
        [0n, 0x9_fc00n, 1],
        [0x9_fc00n, 0x400n, 2],
        [0xf_0000n, 0x1_0000n, 2],
        [0x10_0000n, BigInt(31 * MiB), 1]
      ])
    }))

  it.effect("keeps the initrd below the kernel's own limit", () =>
    Effect.gen(function*() {
      const made = yield* plan({ initrd: new Uint8Array(4097), kernel: bzImage([0x22c, 4, 20 * MiB - 1]) })
      assert.strictEqual(segmentOf(made, "initrd.cpio").address, 20 * MiB - 8192)
    }))

  it.effect("reads Node's Buffer as it reads any bytes", () =>
    Effect.gen(function*() {
      const padded = Buffer.concat([Buffer.from("x"), bzImage()])
      assert.deepStrictEqual(yield* plan({ kernel: padded.subarray(1) }).pipe(Effect.map(plain)), plain(yield* plan()))
    }))

  it.effect("does not look at the header again after it was checked", () =>
    Effect.gen(function*() {
      const kernel = bzImage()
      const made = yield* plan({ kernel })
      kernel.fill(0, 0, SETUP_BYTES)
      assert.deepStrictEqual(plain(made), plain(yield* plan()))
    }))

  it.effect("takes a kernel that does not tell where it unpacks itself", () =>
    Effect.gen(function*() {
      const kernel = bzImage([0x206, 2, 0x0203], [0x258, 8, 0], [0x260, 4, 0])
      const made = yield* plan({
        kernel,
        initrd: new Uint8Array(1),
        memoryBytes: 2 * MiB,
        commandLine: "a".repeat(255)
      })
      assertSound(made, 2 * MiB)
      assert.include(
        yield* refusal(plan({ kernel, commandLine: "a".repeat(256) })),
        "the command line has 256 bytes, but vmlinuz takes at most 255"
      )
    }))

  const loaded = "in guest memory from"
  const cases: ReadonlyArray<readonly [name: string, changes: Changes, message: string]> = [
    ["an empty kernel", { kernel: new Uint8Array() }, "vmlinuz is empty; see that it was read or downloaded whole"],
    ["an empty initrd", { initrd: new Uint8Array() }, "initrd.cpio is empty; see that it was read or downloaded whole"],
    [
      "an ELF file",
      { kernel: fileOf("\x7fELF") },
      "vmlinuz: expected the boot flag 0xaa55 of a bzImage at offset 0x1fe, found 0x0; it looks like an ELF file; " +
      "give the bzImage (vmlinuz) that was built from it, not vmlinux itself"
    ],
    [
      "gzip data",
      { kernel: Uint8Array.of(0x1f, 0x8b, 8, 0) },
      "vmlinuz: expected the boot flag 0xaa55 of a bzImage at offset 0x1fe, found nothing: the file has 4 bytes; " +
      "it looks like gzip data; unpack it first and give what is inside"
    ],
    [
      "an initrd as kernel",
      { kernel: fileOf("070701") },
      "vmlinuz: expected the boot flag 0xaa55 of a bzImage at offset 0x1fe, found 0x0; it looks like a cpio archive; " +
      "that is an initrd: give it as initrd, and the bzImage as kernel"
    ],
    [
      "a boot sector",
      { kernel: bzImage([0x202, 4, 0]) },
      "vmlinuz: expected the bzImage magic \"HdrS\" (0x53726448) at offset 0x202, found 0x0; " +
      "give a bzImage of a current x86 kernel"
    ],
    [
      "a kernel cut off in its header",
      { kernel: bzImage().subarray(0, 0x1ff) },
      "vmlinuz ends after 511 bytes, but by its header the setup header's version ends at byte 520; " +
      "get the whole file again"
    ],
    [
      "a kernel cut off in its real-mode part",
      { kernel: bzImage().subarray(0, 1000) },
      "vmlinuz ends after 1000 bytes, but by its header the real-mode part, before the kernel itself, ends at byte " +
      "1024; get the whole file again"
    ],
    [
      "a kernel cut off in itself",
      { kernel: bzImage().subarray(0, -16) },
      "vmlinuz ends after 13296 bytes, but by its header the protected-mode kernel (syssize) ends at byte 13297; " +
      "get the whole file again"
    ],
    [
      "a kernel cut off in its payload",
      { kernel: bzImage([0x24c, 4, KERNEL_BYTES]) },
      "vmlinuz ends after 13312 bytes, but by its header the compressed kernel (payload_offset + payload_length) ends " +
      "at byte 13460; get the whole file again"
    ],
    [
      "an old boot protocol",
      { kernel: bzImage([0x206, 2, 0x0202]) },
      "vmlinuz: version at offset 0x206 is 2.02, expected boot protocol 2.03 or later; " +
      "give a bzImage of a current x86 kernel"
    ],
    [
      "a header shorter than its version has",
      { kernel: bzImage([0x201, 1, 0x10]) },
      "vmlinuz: jump at offset 0x200 is a jump to 0x212, expected a jump to 0x264 or beyond, where the header of " +
      "protocol 2.15 ends; the file is damaged: get it again"
    ],
    [
      "a zImage",
      { kernel: bzImage([0x211, 1, 0]) },
      "vmlinuz: loadflags at offset 0x211 is 0x0, expected bit 0 (LOADED_HIGH) set, as in every bzImage; " +
      "give a bzImage of a current x86 kernel"
    ],
    [
      "a 64-bit kernel for a 32-bit vCPU",
      { kernel: bzImage([0x236, 2, 0x007f]), longMode: false },
      "vmlinuz: xloadflags at offset 0x236 is 0x7f, expected bit 0 (XLF_KERNEL_64) clear, since the vCPU has no long " +
      "mode; give a 32-bit x86 kernel, or use a hypervisor whose vCPUs run 64-bit code"
    ],
    [
      "an alignment that is none",
      { kernel: bzImage([0x230, 4, 3]) },
      "vmlinuz: kernel_alignment at offset 0x230 is 0x3, expected a power of two; the file is damaged: get it again"
    ],
    [
      "a kernel that would unpack itself over its parameters",
      { kernel: bzImage([0x234, 1, 0], [0x258, 8, 0x1000]) },
      "vmlinuz: pref_address at offset 0x258 is 0x1000, expected at least 0x100000 in a kernel that is not " +
      "relocatable; the file is damaged: get it again"
    ],
    [
      "a kernel beyond the memory",
      { memoryBytes: MiB + 4096 },
      `vmlinuz: the kernel as loaded needs 12288 bytes ${loaded} 0x100000 up to 0x101000, where only 4096 are; ` +
      "give the VM at least 17825792 bytes of memory, or a smaller image"
    ],
    [
      "a kernel that unpacks itself beyond the memory",
      { memoryBytes: 16 * MiB },
      "vmlinuz: the kernel as unpacked (pref_address, init_size) needs 1048576 bytes " +
      `${loaded} 0x1000000 on, but must end by 0x1000000; ` +
      "give the VM at least 17825792 bytes of memory, or a smaller image"
    ],
    [
      "a kernel that unpacks itself above all memory",
      { kernel: bzImage([0x25c, 4, 1]) },
      "vmlinuz: the kernel as unpacked (pref_address, init_size) needs 1048576 bytes " +
      `${loaded} 0x101000000 on, but must end by 0x2000000; use a smaller one`
    ],
    [
      "an initrd beyond the memory",
      { initrd: new Uint8Array(16 * MiB) },
      "initrd.cpio: the initrd, above the kernel and on a page boundary, needs 16777216 bytes " +
      `${loaded} 0x1100000 up to 0x2000000, where only 15728640 are; ` +
      "give the VM at least 34603008 bytes of memory, or a smaller image"
    ],
    [
      "an initrd beyond the kernel's limit",
      { initrd: new Uint8Array(2 * MiB), kernel: bzImage([0x22c, 4, 18 * MiB - 1]) },
      "initrd.cpio: the initrd, above the kernel and on a page boundary, needs 2097152 bytes " +
      `${loaded} 0x1100000 up to 0x1200000, where only 1048576 are; use a smaller one`
    ],
    [
      "a long command line, counted in UTF-8",
      { commandLine: "ä".repeat(1024) },
      "the command line has 2048 bytes, but vmlinuz takes at most 2047; shorten it"
    ],
    [
      "a command line longer than its place",
      { commandLine: "a".repeat(65536), kernel: bzImage([0x238, 4, 0xffff_ffff]) },
      "the command line has 65536 bytes, but vmlinuz takes at most 65535; shorten it"
    ],
    [
      "a zero in the command line",
      { commandLine: "quiet\0init=/bin/sh" },
      "the command line has a zero character at 5, where the kernel would stop reading; remove it"
    ],
    [
      "memory up to the devices",
      { memoryBytes: 2 ** 32 },
      "memoryBytes is 4294967296; pass a multiple of 4096 from 4096 to 3221225472"
    ]
  ]
  for (const [name, changes, message] of cases) {
    it.effect(`refuses ${name}`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* refusal(plan(changes)), message)
      }))
  }

  it.effect("refuses a kernel cut off anywhere", () =>
    Effect.gen(function*() {
      const kernel = bzImage()
      for (let length = 0; length < kernel.length - 15; length += length < 0x400 ? 1 : 61) {
        const message = yield* refusal(plan({ kernel: kernel.subarray(0, length) }))
        assert.match(message, length === 0 ? /is empty/ : /ends after \d+ bytes/, `length ${length}`)
      }
    }))

  const byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
  const someBytes = (maxLength: number) =>
    Arbitrary.map(Arbitrary.array(Arbitrary.schema(byte), { maxLength }), (values) => Uint8Array.from(values))
  const someMemory = Arbitrary.schema(
    Schema.Union([
      Schema.Literals([4096, MiB, MiB + 0x3000, 17 * MiB, 18 * MiB, 64 * MiB, 0xc000_0000]),
      Schema.Number
    ])
  )
  const edit = Schema.Struct({
    // From the zero page's e820 count to the last byte that is copied to it.
    offset: Schema.Int.check(Schema.isBetween({ minimum: 0x1e8, maximum: 0x290 })),
    value: Schema.Union([Schema.Literals([0, 1, 2, 4, 0x7f, 0x80, 0xff]), byte])
  })
  const someEdits = Arbitrary.array(Arbitrary.schema(edit), { maxLength: 6 })
  const edited = (original: Uint8Array, changes: ReadonlyArray<typeof edit.Type>): Uint8Array => {
    const bytes = original.slice()
    for (const { offset, value } of changes) {
      bytes[offset] = value
    }
    return bytes
  }

  it.effect.prop(
    "any bytes give a plan inside the memory or a typed error",
    {
      kernel: someBytes(600),
      initrd: someBytes(20),
      commandLine: Arbitrary.schema(Schema.String),
      memoryBytes: someMemory
    },
    (options) => soundOrRefused(plan(options), options.memoryBytes),
    { arbitrary: { runs: 1000 } }
  )

  it.effect.prop("any header gives a plan inside the memory or a typed error", {
    edits: someEdits,
    cut: Arbitrary.schema(
      Schema.Union([Schema.Literal(0), Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: KERNEL_BYTES }))])
    ),
    initrdBytes: Arbitrary.schema(Schema.Literals([1, 4096, 4097, MiB, 2 * MiB])),
    memoryBytes: someMemory
  }, ({ cut, edits, initrdBytes, memoryBytes }) => {
    const kernel = edited(bzImage(), edits)
    return soundOrRefused(
      plan({ kernel: kernel.subarray(0, kernel.length - cut), initrd: new Uint8Array(initrdBytes), memoryBytes }),
      memoryBytes
    )
  }, { arbitrary: { runs: 2000 } })

  it.effect("any one byte of the header, set to anything, gives a plan inside the memory or a typed error", () =>
    Effect.gen(function*() {
      let planned = 0
      for (let offset = 0x1e8; offset < 0x290; offset++) {
        for (const value of [0, 1, 2, 3, 0x10, 0x7f, 0x80, 0xff]) {
          const made = plan({ kernel: edited(bzImage(), [{ offset, value }]), initrd: new Uint8Array(4097) })
          yield* soundOrRefused(made, 32 * MiB)
          planned += yield* Effect.match(made, { onSuccess: () => 1, onFailure: () => 0 })
        }
      }
      assert.isAbove(planned, 500, "most of them are still kernels, or this test shows nothing")
    }))

  // A real kernel cannot be part of this repository; scripts/fetch-linux-guest.sh gets one.
  const folder = process.env["UPCALL_LINUX_GUEST"] ?? join(import.meta.dirname, "../../../.cache/guest-linux")
  const present = existsSync(join(folder, "complete"))
  const reason = present ? "" : " (skipped: no kernel there; run scripts/fetch-linux-guest.sh)"

  describe(`with Debian's kernel${reason}`, () => {
    const read = () => ({
      kernel: readFileSync(join(folder, "vmlinuz")),
      initrd: readFileSync(join(folder, "initrd.cpio"))
    })

    it.effect.skipIf(!present)("plans it in 64 MiB", () =>
      Effect.gen(function*() {
        const made = yield* plan({ ...read(), memoryBytes: 64 * MiB, longMode: false })
        assertSound(made, 64 * MiB)
        assert.strictEqual(made.segments.length, 5)
      }))

    it.effect.skipIf(!present)(
      "refuses it in 16 MiB, and as initrd and kernel exchanged",
      () =>
        Effect.gen(function*() {
          assert.include(yield* refusal(plan({ ...read(), memoryBytes: 16 * MiB })), "the kernel as unpacked")
          const { initrd, kernel } = read()
          assert.include(yield* refusal(plan({ kernel: initrd, initrd: kernel })), "it looks like a cpio archive")
        })
    )

    it.effect.skipIf(!present)("survives changes of its header", () =>
      Effect.gen(function*() {
        const { kernel } = read()
        const failure = yield* Arbitrary.checkEffect(
          Arbitrary.all({ edits: someEdits, memoryBytes: someMemory }),
          ({ edits, memoryBytes }) =>
            Effect.as(soundOrRefused(plan({ kernel: edited(kernel, edits), memoryBytes }), memoryBytes), true),
          { runs: 50 }
        )
        assert.isUndefined(Arbitrary.formatCheckFailure(failure))
      }))
  })
})

/** A plan without regard to whether its bytes are a Buffer. */
const plain = (made: ImagePlan) => ({
  ...made,
  segments: made.segments.map((segment) => ({ ...segment, bytes: [...segment.bytes] }))
})
