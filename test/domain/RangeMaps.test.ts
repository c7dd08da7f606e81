import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { GuestAddress, Port } from "../../src/domain/Address.ts"
import { MmioMap, PciMap, PortMap } from "../../src/domain/RangeMaps.ts"

const LAST_PORT = 0xffff
const LAST_ADDRESS = 2 ** 52 - 1

interface Span {
  readonly start: number
  readonly end: number
}

/** The obvious way to do it: look at every range. */
class NaiveMap {
  spans: Array<Span & { readonly owner: string }> = []
  find(address: number, bytes: number): string | undefined {
    return this.spans.find((span) => span.start <= address && address + bytes - 1 <= span.end)?.owner
  }
}

const Plan = Schema.Struct({
  /** Gap before, and length of, each range, from the begin of the space on. */
  spans: Schema.Array(Schema.Struct({
    gap: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 600 })),
    length: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 600 }))
  })).check(Schema.isMaxLength(12)),
  /** Ranges to take out again. */
  removed: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 11 }))),
  /** Whether the last range ends where the space ends. */
  atTop: Schema.Boolean
})

/** Disjoint ranges, counted from the begin of the space or back from its last address. */
const spansOf = (plan: typeof Plan.Type, last: number): Array<Span> => {
  let at = 0
  const low = plan.spans.map(({ gap, length }) => {
    const start = at + gap
    at = start + length
    return { start, end: at - 1 }
  })
  if (!plan.atTop) return low
  const shift = last + 1 - at
  return low.map(({ end, start }) => ({ start: start + shift, end: end + shift }))
}

/** Both sides of each edge, and the edges of the space. */
const probes = (spans: ReadonlyArray<Span>, last: number): Array<number> =>
  [0, 1, last, last - 7, ...spans.flatMap(({ end, start }) => [start, end])]
    .flatMap((edge) => [edge - 8, edge - 4, edge - 2, edge - 1, edge, edge + 1, edge + 2])
    .filter((address) => address >= 0 && address <= last)

const sizes = [1, 2, 4, 8]

describe("RangeMaps", () => {
  it.prop("ports are found as by looking at every range", [Plan], ([plan]) => {
    const spans = spansOf(plan, LAST_PORT)
    const map = new PortMap<string>()
    const naive = new NaiveMap()
    const check = () => {
      for (const address of probes(spans, LAST_PORT)) {
        for (const size of sizes) assert.strictEqual(map.find(address, size), naive.find(address, size))
      }
    }
    spans.forEach((span, i) => {
      map.add({ _tag: "Port", start: span.start as Port, end: span.end as Port }, `owner ${i}`)
      naive.spans.push({ ...span, owner: `owner ${i}` })
    })
    check()
    for (const i of plan.removed) {
      const span = spans[i]
      if (span === undefined) continue
      map.remove({ _tag: "Port", start: span.start as Port, end: span.end as Port })
      naive.spans = naive.spans.filter(({ start }) => start !== span.start)
      check()
    }
  })

  it.prop("addresses are found as by looking at every range, in whatever order they came", [Plan], ([plan]) => {
    const spans = spansOf(plan, LAST_ADDRESS)
    const map = new MmioMap<string>()
    const naive = new NaiveMap()
    const check = () => {
      for (const address of probes(spans, LAST_ADDRESS)) {
        for (const size of sizes) assert.strictEqual(map.find(address, size), naive.find(address, size))
      }
    }
    spans.toReversed().forEach((span, i) => {
      map.add({ _tag: "Mmio", start: span.start as GuestAddress, end: span.end as GuestAddress }, `owner ${i}`)
      naive.spans.push({ ...span, owner: `owner ${i}` })
    })
    check()
    for (const i of plan.removed) {
      const span = spans[i]
      if (span === undefined) continue
      map.remove({ _tag: "Mmio", start: span.start as GuestAddress, end: span.end as GuestAddress })
      naive.spans = naive.spans.filter(({ start }) => start !== span.start)
      check()
    }
  })

  it("the highest port and the highest address belong to whoever has them, whole accesses only", () => {
    const ports = new PortMap<string>()
    ports.add({ _tag: "Port", start: 0xfffe as Port, end: 0xffff as Port }, "top")
    assert.strictEqual(ports.find(0xffff, 1), "top")
    assert.strictEqual(ports.find(0xfffe, 2), "top")
    assert.isUndefined(ports.find(0xffff, 2))
    assert.isUndefined(ports.find(0xfffd, 2))
    const mmio = new MmioMap<string>()
    mmio.add({ _tag: "Mmio", start: 0 as GuestAddress, end: LAST_ADDRESS as GuestAddress }, "all")
    assert.strictEqual(mmio.find(LAST_ADDRESS, 1), "all")
    assert.strictEqual(mmio.find(LAST_ADDRESS - 7, 8), "all")
    assert.isUndefined(mmio.find(LAST_ADDRESS, 2))
  })

  it.prop("an access across two neighbours belongs to neither", [Plan], ([plan]) => {
    const ports = new PortMap<string>()
    const mmio = new MmioMap<string>()
    let at = 0
    for (const [i, { length }] of plan.spans.entries()) {
      ports.add({ _tag: "Port", start: at as Port, end: (at + length - 1) as Port }, `owner ${i}`)
      mmio.add({ _tag: "Mmio", start: at as GuestAddress, end: (at + length - 1) as GuestAddress }, `owner ${i}`)
      at += length
      assert.isUndefined(ports.find(at - 1, 2))
      assert.isUndefined(mmio.find(at - 1, 2))
    }
  })

  it.prop(
    "a PCI function belongs to its own owner before the owner of the rest",
    [Schema.Array(Schema.Tuple([Schema.Literals([0, 1, 255]), Schema.Literals([0, 31]), Schema.Literals([0, 7])]))],
    ([claimed]) => {
      const map = new PciMap<string>()
      const key = (at: readonly [number, number, number]) => at.join(":")
      const owners = new Map<string, string>()
      for (const [i, [bus, device, fn]] of claimed.entries()) {
        map.add({ _tag: "PciFunction", bus, device, function: fn }, `owner ${i}`)
        owners.set(key([bus, device, fn]), `owner ${i}`)
      }
      const everywhere = [0, 1, 2, 255].flatMap((bus) =>
        [0, 1, 31].flatMap((device) => [0, 1, 7].map((fn) => [bus, device, fn] as const))
      )
      for (const at of everywhere) assert.strictEqual(map.find(...at), owners.get(key(at)))
      map.setRest("rest")
      for (const at of everywhere) assert.strictEqual(map.find(...at), owners.get(key(at)) ?? "rest")
      for (const [bus, device, fn] of claimed) map.remove({ _tag: "PciFunction", bus, device, function: fn })
      for (const at of everywhere) assert.strictEqual(map.find(...at), "rest")
      map.setRest(undefined)
      for (const at of everywhere) assert.isUndefined(map.find(...at))
    }
  )
})
