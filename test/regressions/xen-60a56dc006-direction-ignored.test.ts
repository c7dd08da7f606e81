/**
 * Xen commit 60a56dc006. A repeated string instruction that runs downwards is one request with the address of its first
 * element, which is its highest. Xen worked out the range of such a request as if it ran upwards, and so gave it to the
 * wrong device model, or to none.
 *
 * Here each element is an access of its own, with its own address, in the order that the direction flag says. Routing
 * sees plain accesses; there is no range to get wrong, and an instruction may cross from one device into the next.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mmio } from "../../src/domain/IoRange.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as g from "../support/guest.ts"
import { boot, brief, onSimulated, runToEnd } from "../support/machines.ts"

const BORDER = 0xd000_1000
const DATA = 0x8000
const std: g.Code = [0xfd]

describe("Xen 60a56dc006: routing ignores the direction of a string instruction", () => {
  it.effect("a copy that runs downwards over the border of two devices reaches each with its own elements", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(std, g.repMove(DATA + 3, BORDER + 1, 4), g.repMove(BORDER, DATA + 9, 2), g.stop))
      yield* vm.memory.write(DATA, Uint8Array.of(0xa0, 0xa1, 0xa2, 0xa3))
      const seen: Array<string> = []
      const device = (name: string, start: number) =>
        vm.io.register({
          name,
          ranges: [mmio(start, start + 0xfff)],
          handle: (request: IoRequest) =>
            Effect.sync(() => {
              seen.push(`${name}: ${brief(request)}`)
              return name === "low" ? 0x10 : 0x20
            })
        })
      yield* device("low", BORDER - 0x1000)
      yield* device("high", BORDER)
      assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
      assert.deepStrictEqual(seen, [
        "high: w1 mmio d0001001 a3",
        "high: w1 mmio d0001000 a2",
        "low: w1 mmio d0000fff a1",
        "low: w1 mmio d0000ffe a0",
        "high: r1 mmio d0001000",
        "low: r1 mmio d0000fff"
      ])
      assert.deepStrictEqual([...yield* vm.memory.read(DATA + 8, 2)], [0x10, 0x20])
    }).pipe(onSimulated()))
})
