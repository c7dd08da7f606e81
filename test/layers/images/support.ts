import { assert } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { ImagePlan } from "../../../src/domain/ImagePlan.ts"
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

/** Every claim a plan makes, checked without the schema's help too. */
export const assertSound = (plan: ImagePlan, memoryBytes: number): void => {
  assert.isTrue(isImagePlan(plan))
  assert.isTrue(Result.isSuccess(VcpuRegisters.check(plan.registers)))
  assert.strictEqual(plan.memoryBytes, memoryBytes)
  for (const [index, a] of plan.segments.entries()) {
    assert.isAbove(a.bytes.length, 0)
    assert.isAtLeast(a.address, 0)
    assert.isAtMost(a.address + a.bytes.length, memoryBytes, `${a.name} outside RAM`)
    for (const b of plan.segments.slice(index + 1)) {
      assert.isTrue(
        a.address + a.bytes.length <= b.address || b.address + b.bytes.length <= a.address,
        `${a.name} overlaps ${b.name}`
      )
    }
  }
  assert.isAbove(Number(plan.registers.gprs.rsp), 0)
  assert.isAtMost(Number(plan.registers.gprs.rsp), memoryBytes)
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
