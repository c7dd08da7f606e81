import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as MemorySize from "../../src/cli/MemorySize.ts"

const pages = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 40 }))

describe("MemorySize", () => {
  it("takes bytes, units of both cases, and their longer names", () => {
    for (
      const [text, bytes] of [
        ["65536", 65_536],
        ["65536B", 65_536],
        ["64M", 67_108_864],
        ["64m", 67_108_864],
        ["64MB", 67_108_864],
        ["64MiB", 67_108_864],
        [" 1G ", 2 ** 30],
        ["8k", 8192],
        ["4096T", 2 ** 52]
      ] as const
    ) {
      assert.deepStrictEqual(MemorySize.parse(text), Result.succeed(bytes), text)
    }
  })

  it("refuses everything else, and says what it takes", () => {
    for (
      const text of ["", "M", "64X", "-64M", "1.5G", "0", "0M", "100", "4097", "64M ram", "5000T", "1e6", "0x1000"]
    ) {
      const parsed = MemorySize.parse(text)
      assert.isTrue(Result.isFailure(parsed), text)
    }
    assert.deepStrictEqual(
      MemorySize.parse("5"),
      Result.fail("a positive multiple of 4096 bytes, such as 64M or 1G")
    )
  })

  it.prop("reads what it writes", [pages], ([count]) => {
    const text = MemorySize.format(count * 4096)
    assert.deepStrictEqual(MemorySize.parse(text), Result.succeed(count * 4096), text)
  })

  it("reads addresses in decimal and hexadecimal", () => {
    assert.deepStrictEqual(MemorySize.parseAddress("0x1000"), Result.succeed(0x1000))
    assert.deepStrictEqual(MemorySize.parseAddress("0XfF"), Result.succeed(255))
    assert.deepStrictEqual(MemorySize.parseAddress("4096"), Result.succeed(4096))
    for (const text of ["", "0x", "1000h", "-1", "1e3", "0x10000000000000", "99999999999999999999"]) {
      assert.isTrue(Result.isFailure(MemorySize.parseAddress(text)), text)
    }
  })
})
