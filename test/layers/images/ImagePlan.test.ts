import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { ImagePlan } from "../../../src/domain/ImagePlan.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"

const segment = (name: string, address: number, bytes: number) => ({ name, address, bytes: new Uint8Array(bytes) })

const decode = (memoryBytes: number, ...segments: ReadonlyArray<ReturnType<typeof segment>>) =>
  Schema.decodeUnknownEffect(ImagePlan)({ memoryBytes, segments, registers: VcpuRegisters.flat32({ entry: 0x1000 }) })

describe("ImagePlan", () => {
  it.effect("takes segments in any order that touch each other and the end of the memory", () =>
    decode(0x3000, segment("high", 0x2000, 0x1000), segment("low", 0x1000, 0x1000)))

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
