import { assert } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { ImagePlan, type ImageSegment } from "../../../src/domain/ImagePlan.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import type { ImageError } from "../../../src/layers/images/ImageError.ts"

export const MiB = 1024 * 1024

/** Values of header fields by offset in the file: [offset, bytes of the field, value]. */
export type Field = readonly [offset: number, bytes: 1 | 2 | 4 | 8, value: number]

export const KERNEL_BYTES = 0x3000
export const SETUP_BYTES = 2 * 512

/** Numbers of a 6.1 kernel for i386, but for the sizes: preferred at 16 MiB, needs 1 MiB there. */
const fields: ReadonlyArray<Field> = [
  [0x1f1, 1, 1], // setup_sects
  [0x1f4, 4, KERNEL_BYTES / 16], // syssize
  [0x1fe, 2, 0xaa55], // boot_flag
  [0x200, 2, 0x6aeb], // jump, over 0x6a bytes
  [0x202, 4, 0x5372_6448], // header: HdrS
  [0x206, 2, 0x020f], // version
  [0x211, 1, 0x01], // loadflags: LOADED_HIGH
  [0x214, 4, 0x10_0000], // code32_start
  [0x22c, 4, 0x7fff_ffff], // initrd_addr_max
  [0x230, 4, 0x100_0000], // kernel_alignment
  [0x234, 1, 1], // relocatable_kernel
  [0x236, 2, 0x0004], // xloadflags
  [0x238, 4, 2047], // cmdline_size
  [0x248, 4, 0x94], // payload_offset
  [0x24c, 4, 0x2f00], // payload_length
  [0x258, 8, 0x100_0000], // pref_address
  [0x260, 4, 0x10_0000] // init_size
]

/** A file with the header of a bzImage and no code in it; later fields win. */
export const bzImage = (...changes: ReadonlyArray<Field>): Uint8Array => {
  const bytes = new Uint8Array(SETUP_BYTES + KERNEL_BYTES)
  bytes.fill(0xf4, SETUP_BYTES)
  const view = new DataView(bytes.buffer)
  for (const [offset, size, value] of [...fields, ...changes]) {
    if (size === 1) {
      view.setUint8(offset, value)
    } else if (size === 2) {
      view.setUint16(offset, value, true)
    } else if (size === 4) {
      view.setUint32(offset, value, true)
    } else {
      view.setBigUint64(offset, BigInt(value), true)
    }
  }
  return bytes
}

const isImagePlan = Schema.is(ImagePlan)

const endOf = (segment: ImageSegment): number => segment.address + segment.bytes.length + (segment.zeroBytes ?? 0)

/** Every claim a plan makes, checked without the schema's help too. */
export const assertSound = (plan: ImagePlan, memoryBytes: number): void => {
  assert.isTrue(isImagePlan(plan))
  assert.isTrue(Result.isSuccess(VcpuRegisters.check(plan.registers)))
  assert.strictEqual(plan.memoryBytes, memoryBytes)
  for (const [index, a] of plan.segments.entries()) {
    assert.isAbove(endOf(a) - a.address, 0)
    assert.isAtLeast(a.address, 0)
    assert.isAtMost(endOf(a), memoryBytes, `${a.name} outside RAM`)
    for (const b of plan.segments.slice(index + 1)) {
      assert.isTrue(endOf(a) <= b.address || endOf(b) <= a.address, `${a.name} overlaps ${b.name}`)
    }
  }
  assert.isAbove(Number(plan.registers.gprs.rsp), 0)
  assert.isAtMost(Number(plan.registers.gprs.rsp), memoryBytes)
  if (VcpuRegisters.modeOf(plan.registers) === "Long64") assertIdentityMapped(plan)
}

/** The 8 bytes at a guest physical address, as a processor that starts from the plan reads them. */
const read64 = (plan: ImagePlan, address: bigint): bigint => {
  const at = Number(address)
  const segment = plan.segments.find((one) => at >= one.address && at + 8 <= endOf(one))
  assert(segment !== undefined, `nothing at ${at.toString(16)}`)
  return new DataView(segment.bytes.buffer, segment.bytes.byteOffset).getBigUint64(at - segment.address, true)
}

/** Walks page tables as the processor does: 4 levels, pages of 2 MiB, all of it present and writable. */
const translate = (plan: ImagePlan, address: bigint): bigint => {
  let table = plan.registers.cr3
  for (const shift of [39n, 30n, 21n]) {
    const entry = read64(plan, table + (address >> shift & 0x1ffn) * 8n)
    assert.strictEqual(entry & 3n, 3n, `${address.toString(16)} is not mapped`)
    const frame = entry & 0xf_ffff_ffff_f000n
    if ((entry & 0x80n) !== 0n) {
      assert.strictEqual(shift, 21n)
      return frame | address & 0x1f_ffffn
    }
    table = frame
  }
  return assert.fail("a page of 4 KiB")
}

/** What 64-bit mode needs beside the image. */
const assertIdentityMapped = (plan: ImagePlan): void => {
  const { csSel, gdt, gprs, rip, ssSel } = plan.registers
  for (const address of [0n, 0xfffn, rip, gprs.rsp, 0x4000_0000n, 0xe000_0000n, 0xffff_fff8n]) {
    if (address < 1n << 32n) assert.strictEqual(translate(plan, address), address)
  }
  // Flat, present, ring 0: 64-bit code that can be read, data that can be written.
  assert.strictEqual(read64(plan, gdt.base + BigInt(csSel)), 0x00af_9b00_0000_ffffn)
  assert.strictEqual(read64(plan, gdt.base + BigInt(ssSel)), 0x00cf_9300_0000_ffffn)
  assert.strictEqual(gdt.limit, 31)
}

/** A sound plan, or a typed error with a message; anything else (a throw, a defect) fails the test. */
export const soundOrRefused = (
  made: Effect.Effect<ImagePlan, ImageError>,
  memoryBytes: number
): Effect.Effect<void> =>
  Effect.match(made, {
    onSuccess: (plan) => assertSound(plan, memoryBytes),
    onFailure: (error) => {
      assert.strictEqual(error._tag, "ImageError")
      assert.isAbove(error.message.length, 20)
      assert.notMatch(error.message, /undefined|NaN bytes|\[object/)
    }
  })

/** The message of the error that a plan must end in. */
export const refusal = (made: Effect.Effect<ImagePlan, ImageError>): Effect.Effect<string, ImagePlan> =>
  Effect.map(Effect.flip(made), (error) => error.message)

/** One program header; what is left out is 0, and `paddr` is `vaddr`. Sizes in bytes. */
export interface ElfProgram {
  readonly type?: number
  readonly offset?: number | bigint
  readonly vaddr?: number | bigint
  readonly paddr?: number | bigint
  readonly filesz?: number | bigint
  readonly memsz?: number | bigint
}

export const ELF_BYTES = 0x2000

/** An ELF file of `ELF_BYTES` bytes whose headers claim this. Default: code at 1 MiB from offset 0x1000. */
export const elf = (options: {
  readonly bits?: 32 | 64
  readonly type?: number
  readonly machine?: number
  readonly entry?: number | bigint
  readonly programs?: ReadonlyArray<ElfProgram>
  /** Bytes put at places of the file. */
  readonly put?: ReadonlyArray<readonly [offset: number, bytes: Uint8Array]>
} = {}): Uint8Array => {
  const { bits = 64, entry = 0x10_0000, machine = bits === 64 ? 62 : 3, type = 2 } = options
  const { programs = [{ offset: 0x1000, vaddr: 0x10_0000, filesz: 0x800, memsz: 0x1800 }], put = [] } = options
  const bytes = new Uint8Array(ELF_BYTES).fill(0x90, 0x1000)
  const view = new DataView(bytes.buffer)
  const half = (at: number, value: number) => view.setUint16(at, value, true)
  const word = (at: number, value: number) => view.setUint32(at, value, true)
  const wide = (at: number, value: number | bigint) =>
    bits === 64 ? view.setBigUint64(at, BigInt(value), true) : word(at, Number(value))

  bytes.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, 1, 1])
  half(16, type)
  half(18, machine)
  word(20, 1)
  wide(24, entry)
  const [headerBytes, programBytes, table, counts] = bits === 64 ? [64, 56, 32, 52] : [52, 32, 28, 40]
  wide(table, headerBytes)
  half(counts, headerBytes)
  half(counts + 2, programBytes)
  half(counts + 4, programs.length)
  for (const [index, program] of programs.entries()) {
    const at = headerBytes + index * programBytes
    const { filesz = 0, memsz = 0, offset = 0, vaddr = 0 } = program
    const words = [offset, vaddr, program.paddr ?? vaddr, filesz, memsz]
    word(at, program.type ?? 1)
    words.forEach((value, field) => wide(at + (bits === 64 ? 8 + field * 8 : 4 + field * 4), value))
  }
  for (const [offset, piece] of put) bytes.set(piece, offset)
  return bytes
}

/** A Multiboot header: magic, flags, the checksum, and more fields as they come. */
export const multibootHeader = (flags: number, ...more: ReadonlyArray<number>): Uint8Array =>
  new Uint8Array(Uint32Array.from([0x1bad_b002, flags, -(0x1bad_b002 + flags), ...more]).buffer)
