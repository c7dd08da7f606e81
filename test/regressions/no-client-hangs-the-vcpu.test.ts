/**
 * ACRN issues 1121 and 8554. The driver of the HSM says "Failed to find ioreq client!" and goes on to the next VM: the
 * request stays as it is, and the vCPU that made it waits for ever. A VM that was started before its default client was
 * made, or whose client had died, stood still.
 *
 * Here a request that nobody owns is answered in the same look: a read gives all-ones as an empty bus does, a write is
 * dropped, the vCPU goes on, and an event names the address and the ranges that come closest to it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { ports } from "../../src/domain/IoRange.ts"
import { ALL_ONES, constant, makeDispatcher } from "../support/dispatcher.ts"

describe("a request that no client owns hangs its vCPU", () => {
  const { Mmio, PciConfig } = Slot.RequestTypeCode
  const requests = [
    ["a port", { size: 2 }, 0xffff],
    ["memory", { type: Mmio, address: 0xd000_0000, size: 8 }, ALL_ONES],
    ["a PCI function", { type: PciConfig, size: 4 }, ALL_ONES],
    ["a write", { direction: Slot.DirectionCode.Write, size: 4, value: 0x55 }, 0x55]
  ] as const
  for (const [name, request, answer] of requests) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const { ask, io, notified } = makeDispatcher()
        yield* io.register(constant("near", 1, ports(0x108, 0x10f)))
        assert.strictEqual(ask(request), answer)
        assert.deepStrictEqual(notified, [0])
        assert.deepStrictEqual((yield* io.recentEvents).map(({ _tag }) => _tag), ["Unhandled"])
        assert.strictEqual(ask({ address: 0x108 }), 1, "and its next request is served")
      }))
  }
})
