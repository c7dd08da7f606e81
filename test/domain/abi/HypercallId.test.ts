import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as HypercallId from "../../../src/domain/abi/HypercallId.ts"
import { U32 } from "../../../src/domain/abi/Unsigned.ts"

describe("HypercallId", () => {
  it("the ids are those of hypercall.h, unsigned", () => {
    assert.deepStrictEqual(HypercallId.HypercallId, {
      CreateVm: 0x8000_0010,
      DestroyVm: 0x8000_0011,
      StartVm: 0x8000_0012,
      PauseVm: 0x8000_0013,
      ResetVm: 0x8000_0015,
      SetVcpuRegs: 0x8000_0016,
      SetIrqLine: 0x8000_0025,
      SetIoRequestBuffer: 0x8000_0030,
      NotifyRequestFinish: 0x8000_0031,
      SetMemoryRegions: 0x8000_0042
    })
  })

  it.prop("number and id are inverse", [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xff_ffff }))], (
    [number]
  ) => {
    assert.strictEqual(HypercallId.toNumber(HypercallId.fromNumber(number)), number)
  })

  it.prop("a word is an id exactly when its high byte is 0x80", [U32], ([word]) => {
    assert.strictEqual(HypercallId.toNumber(word) !== undefined, Math.floor(word / 2 ** 24) === 0x80)
  })

  it("names the ids it has, and no other", () => {
    for (const [name, id] of Object.entries(HypercallId.HypercallId)) {
      assert.strictEqual(HypercallId.nameOf(id), name)
    }
    assert.isUndefined(HypercallId.nameOf(HypercallId.fromNumber(0x14)))
    assert.isUndefined(HypercallId.nameOf(0x10))
    for (const word of [-1, 2 ** 32 + 0x8000_0010, Number.NaN, -0x7fff_fff0]) {
      assert.isUndefined(HypercallId.toNumber(word))
    }
  })
})
