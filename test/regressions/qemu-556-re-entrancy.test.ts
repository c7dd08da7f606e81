/**
 * QEMU issue 556. A device whose DMA descriptors point at its own registers calls itself: a register write starts a
 * transfer, the transfer writes a register, and the handler runs again inside itself, on a state that is half changed.
 * Thirteen kinds of device were found to use freed memory or to run out of stack this way. QEMU now marks a device that
 * is inside a handler and refuses the second entry.
 *
 * Here a device's transfers reach RAM and nothing else, and an upcall that comes while requests are being served is
 * served after them, in the same stack frame: handlers do not nest.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mmio, ports } from "../../src/domain/IoRange.ts"
import * as Upcalls from "../../src/services/Upcalls.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"
import { makeDispatcher } from "../support/dispatcher.ts"

describe("QEMU 556: a device is entered again from inside itself", () => {
  it.effect("a request that comes while another is served is served after it", () =>
    Effect.gen(function*() {
      const { dispatcher, fake, io, take } = makeDispatcher(8)
      const { raise, service } = Upcalls.make()
      yield* service.register((hint) => dispatcher.serve(hint?.vcpu))
      let depth = 0
      let deepest = 0
      yield* io.register({
        name: "device",
        ranges: [ports(0x100, 0x1ff)],
        handle: ({ vcpu }) =>
          Effect.sync(() => {
            depth++
            deepest = Math.max(deepest, depth)
            // What this handler does makes another vCPU touch the same device.
            if (vcpu < 7) {
              fake.submit(vcpu + 1, {})
              raise({ vmId: 1, vcpu: vcpu + 1 })
            }
            depth--
            return vcpu
          })
      })
      fake.submit(0, {})
      raise({ vmId: 1, vcpu: 0 })
      assert.strictEqual(deepest, 1)
      assert.deepStrictEqual(Array.from({ length: 8 }, (_, vcpu) => take(vcpu)), [0, 1, 2, 3, 4, 5, 6, 7])
    }))

  it.effect("a transfer to a device's own registers is refused as no RAM", () =>
    Effect.gen(function*() {
      const guest = yield* TestMachine.make()
      const BAR = 0xd000_0000
      const refusals: Array<string> = []
      let entered = 0
      yield* guest.machine.io.register({
        name: "dma",
        ranges: [mmio(BAR, BAR + 0xfff)],
        handle: () =>
          Effect.suspend(() => {
            entered++
            return guest.machine.memory.write(BAR, Uint8Array.of(1)).pipe(
              Effect.catch((error) => Effect.sync(() => refusals.push(error.reason._tag)))
            )
          })
      })
      yield* guest.mmioWrite(BAR, 4, 1n)
      assert.deepStrictEqual([entered, refusals], [1, ["OutsideRam"]])
    }))
})
