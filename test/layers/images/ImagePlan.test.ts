import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { GuestAddress } from "../../../src/domain/Address.ts"
import { ImagePlan, segmentSize } from "../../../src/domain/ImagePlan.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"

const segment = (name: string, address: number, bytes: number) => ({ name, address, bytes: new Uint8Array(bytes) })

const zeros = (name: string, address: number, zeroBytes: number, bytes = 0) => ({
  ...segment(name, address, bytes),
  zeroBytes
})

const decode = (memoryBytes: number, ...segments: ReadonlyArray<ReturnType<typeof segment>>) =>
  Schema.decodeUnknownEffect(ImagePlan)({ memoryBytes, segments, registers: VcpuRegisters.flat32({ entry: 0x1000 }) })

describe("ImagePlan", () => {
  it.effect("takes segments in any order that touch each other and the end of the memory", () =>
    decode(0x3000, segment("high", 0x2000, 0x1000), segment("low", 0x1000, 0x1000)))

  it.effect("takes zeros up to the next segment and the end of the memory", () =>
    decode(0x3000, zeros("low", 0x1000, 0xf00, 0x100), zeros("high", 0x2000, 0x1000)))

  it("counts a segment's zeros into its size", () => {
    const address = GuestAddress.make(0x1000)
    assert.strictEqual(segmentSize({ name: "", address, bytes: new Uint8Array(3) }), 3)
    assert.strictEqual(segmentSize({ name: "", address, bytes: new Uint8Array(3), zeroBytes: 4 }), 7)
  })

  const cases: ReadonlyArray<readonly [string, ReturnType<typeof decode>, string]> = [
    [
      "a segment that ends beyond the memory",
      decode(0x3000, segment("code", 0x1000, 0x2001)),
      "code (0x1000-0x3000) is not wholly inside 0x3000 bytes of RAM"
    ],
    [
      "segments that share a byte",
      decode(0x4000, segment("b", 0x2000, 0x1000), segment("a", 0x1000, 0x1001)),
      "a (0x1000-0x2000) overlaps b (0x2000-0x2fff)"
    ],
    [
      "a segment inside another",
      decode(0x4000, segment("a", 0x1000, 0x2000), segment("b", 0x1800, 1)),
      "a (0x1000-0x2fff) overlaps b (0x1800-0x1800)"
    ],
    [
      "zeros that end beyond the memory",
      decode(0x3000, segment("code", 0x1000, 0x10), zeros("bss", 0x2000, 0x1001)),
      "bss (0x2000-0x3000) is not wholly inside 0x3000 bytes of RAM"
    ],
    [
      "zeros that another segment's bytes lie in",
      decode(0x3000, zeros("a", 0x1000, 0x100, 0x10), segment("b", 0x10ff, 1)),
      "a (0x1000-0x110f) overlaps b (0x10ff-0x10ff)"
    ],
    [
      "a first instruction among zeros",
      decode(0x3000, zeros("bss", 0x1000, 0x100)),
      "the first instruction, at 0x1000, is in none of the segments"
    ],
    ["fewer zeros than none", decode(0x3000, zeros("bss", 0x1000, -1, 0x100)), "a value between 0 and"],
    [
      "a first instruction in no segment",
      decode(0x4000, segment("a", 0x1001, 0x10)),
      "the first instruction, at 0x1000, is in none of the segments"
    ],
    ["an address that is none", decode(0x4000, segment("a", -1, 0x2000)), "a value between 0 and"]
  ]
  for (const [name, decoded, message] of cases) {
    it.effect(`refuses ${name}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(decoded)
        assert.include(error.message, message)
      }))
  }
})
