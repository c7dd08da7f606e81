import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Port, VcpuId } from "../../../src/domain/Address.ts"
import type { PortRead, PortWrite } from "../../../src/domain/IoRequest.ts"
import { ConfigAddress } from "../../../src/services/dispatch/ConfigAddress.ts"

const ENABLE = 0x8000_0000

const read = (port: number, size: 1 | 2 | 4): PortRead => ({
  _tag: "PortRead",
  vcpu: VcpuId.make(0),
  port: Port.make(port),
  size
})
const write = (port: number, size: 1 | 2 | 4, value: number): PortWrite => ({
  ...read(port, size),
  _tag: "PortWrite",
  value
})

const Size = Schema.Literals([1, 2, 4])
const Latch = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff }))
const AnyPort = Schema.Union([
  Schema.Int.check(Schema.isBetween({ minimum: 0xcf4, maximum: 0xd03 })),
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xfffc }))
])

const latched = (latch: number): ConfigAddress => {
  const config = new ConfigAddress()
  config.fold(write(0xcf8, 4, latch))
  return config
}

describe("ConfigAddress", () => {
  it.prop("an access is the address register, the data window, or plain port I/O: by port and size alone", [
    AnyPort,
    Size,
    Latch,
    Schema.Boolean
  ], ([port, size, latch, writes]) => {
    const config = latched(latch)
    const request = writes ? write(port, size, 0x1122_3344) : read(port, size)
    const folded = config.fold(request)
    if (port === 0xcf8 && size === 4) return assert.strictEqual(folded, writes ? 0 : latch)
    const isData = port >= 0xcfc && port + size <= 0xd00
    if (!isData) return assert.strictEqual(folded, request, "not changed at all")
    if (latch < ENABLE) return assert.strictEqual(folded, 0xffff_ffff)
    const target = {
      vcpu: 0,
      bus: Math.floor(latch / 2 ** 16) % 256,
      device: Math.floor(latch / 2 ** 11) % 32,
      function: Math.floor(latch / 2 ** 8) % 8,
      register: latch % 256 - latch % 4 + Math.floor(latch / 2 ** 24) % 16 * 256 + port - 0xcfc,
      size
    }
    assert.deepStrictEqual<unknown>(
      folded,
      writes ? { _tag: "PciWrite", ...target, value: 0x1122_3344 } : { _tag: "PciRead", ...target }
    )
  }, { arbitrary: { runs: 2000 } })

  it.prop("narrow accesses to 0xCF8 to 0xCFB leave the address register as it was", [
    Schema.Literals([0xcf8, 0xcf9, 0xcfa, 0xcfb]),
    Schema.Literals([1, 2]),
    Latch
  ], ([port, size, latch]) => {
    const config = latched(latch)
    const request = write(port, size, 0xff)
    assert.strictEqual(config.fold(request), request)
    assert.strictEqual(config.fold(read(0xcf8, 4)), latch)
  })

  it("a data access that runs over the end of its dword is plain port I/O", () => {
    const config = latched(ENABLE)
    for (const [port, size] of [[0xcfd, 4], [0xcfe, 4], [0xcff, 4], [0xcff, 2]] as const) {
      const request = read(port, size)
      assert.strictEqual(config.fold(request), request)
    }
  })

  it("reset clears the register", () => {
    const config = latched(0x8000_f8f8)
    config.reset()
    assert.strictEqual(config.fold(read(0xcf8, 4)), 0)
    assert.strictEqual(config.fold(read(0xcfc, 4)), 0xffff_ffff)
  })
})
