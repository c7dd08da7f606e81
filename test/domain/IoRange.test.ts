import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as IoRange from "../../src/domain/IoRange.ts"

const LAST_ADDRESS = 2 ** 52 - 1

/** What a range owns, address by address; only for small ones. */
const owned = (range: IoRange.IoRange): Array<string> => {
  switch (range._tag) {
    case "Port":
    case "Mmio": {
      const start: number = range.start
      return Array.from({ length: range.end - start + 1 }, (_, at) => `${range._tag} ${start + at}`)
    }
    case "PciFunction":
      return [`Pci ${range.bus} ${range.device} ${range.function}`]
    case "PciAny":
      return ["Pci rest"]
  }
}

const Small = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 }))
const SmallRange = Schema.TaggedUnion({
  Port: { start: Small, length: Small },
  Mmio: { start: Small, length: Small },
  Pci: {
    bus: Schema.Literals([0, 1]),
    device: Schema.Literals([0, 1]),
    function: Schema.Literals([0, 1])
  },
  Any: {}
})

type SmallRange = typeof SmallRange.Type

const toRange = (small: SmallRange): IoRange.IoRange => {
  switch (small._tag) {
    case "Port":
      return IoRange.ports(small.start, small.start + small.length)
    case "Mmio":
      return IoRange.mmio(small.start, small.start + small.length)
    case "Pci":
      return IoRange.pciFunction(small.bus, small.device, small.function)
    case "Any":
      return IoRange.pciAny
  }
}

describe("IoRange", () => {
  it.prop("two ranges overlap exactly when they own one address of one space", [SmallRange, SmallRange], ([a, b]) => {
    const [left, right] = [toRange(a), toRange(b)]
    const shared = owned(left).some((address) => owned(right).includes(address))
    assert.strictEqual(IoRange.overlaps(left, right), shared)
    assert.strictEqual(IoRange.overlaps(right, left), shared)
  }, { arbitrary: { runs: 1000 } })

  it.prop("a range overlaps itself", [IoRange.IoRange], ([range]) => {
    assert.isTrue(IoRange.overlaps(range, range))
  })

  it("the edges of the spaces are inside, what is beyond is refused", () => {
    assert.deepEqual<unknown>(IoRange.ports(0xffff, 0xffff), { _tag: "Port", start: 0xffff, end: 0xffff })
    assert.deepEqual<unknown>(IoRange.mmio(0, LAST_ADDRESS), { _tag: "Mmio", start: 0, end: LAST_ADDRESS })
    for (
      const bad of [
        () => IoRange.ports(-1, 0),
        () => IoRange.ports(0, 0x1_0000),
        () => IoRange.ports(0.5, 1),
        () => IoRange.mmio(0, LAST_ADDRESS + 1),
        () => IoRange.mmio(0, Infinity),
        () => IoRange.mmio(NaN, 1),
        () => IoRange.pciFunction(256, 0, 0),
        () => IoRange.pciFunction(0, 32, 0),
        () => IoRange.pciFunction(0, 0, 8)
      ]
    ) assert.throws(bad)
  })

  it("an end before the start is refused, in words (CVE-2017-15591)", () => {
    assert.throws(() => IoRange.ports(0x3ff, 0x3f8), /a range's end \(0x3f8\) must not lie before its start \(0x3ff\)/)
    assert.throws(() => IoRange.mmio(0x2000, 0x1000), /a range's end \(0x1000\) must not lie before its start/)
    assert.throws(() => IoRange.ports(-9, 3), /Expected a value between 0 and 65535/)
  })

  it("ranges are shown as people write them", () => {
    assert.deepStrictEqual(
      [IoRange.ports(0x3f8, 0x3ff), IoRange.mmio(0xfed0_0000, 0xfed0_03ff), IoRange.pciFunction(0, 31, 2)].map(
        IoRange.format
      ),
      ["ports 0x3f8-0x3ff", "MMIO 0xfed00000-0xfed003ff", "PCI 0:31.2"]
    )
    assert.strictEqual(IoRange.format(IoRange.pciAny), "PCI (any function)")
  })
})
