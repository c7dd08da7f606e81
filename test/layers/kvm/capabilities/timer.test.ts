/** The kernel's 8254, in a guest that counts its ticks. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ports } from "../../../../src/domain/IoRange.ts"
import * as Kvm from "../../../../src/layers/Kvm.ts"
import { recorder } from "../../../support/machines.ts"
import { hlt, iret, onKvm, outb, problem, programPic, realMode, skipped, sti, stop } from "./guests.ts"

const TICKS = 20
const DONE = 0x500
// 1.193182 MHz / 1193: a tick each millisecond.
const COUNT = 1193
const TIMER_VECTOR = 0x20

const clearBx = [0x31, 0xdb]
const compareBx = (value: number) => [0x83, 0xfb, value]
// JB over both of these and the HLT.
const backToHlt = [0x72, 0xfa]

// Channel 0, both bytes, rate generator; BX counts.
const counting = [
  ...programPic(0xfe),
  ...outb(0x43, 0x34),
  ...outb(0x40, COUNT & 0xff),
  ...outb(0x40, COUNT >> 8),
  ...clearBx,
  ...sti,
  ...hlt,
  ...compareBx(TICKS),
  ...backToHlt,
  ...outb(DONE, TICKS),
  ...stop
]

// INC BX, and the end of the interrupt.
const tick = [0x43, 0x50, 0x52, ...outb(0x20, 0x20), 0x5a, 0x58, ...iret]

describe.skipIf(problem !== undefined)(`the kernel's timer on KVM${skipped}`, () => {
  it.live("interrupts a guest that halts, and asks no client", () =>
    Effect.gen(function*() {
      const vm = yield* realMode(counting, { [TIMER_VECTOR]: tick })
      const seen = yield* recorder(vm, { ranges: [ports(0, 0x5ff)] })
      const running = yield* vm.start
      yield* running.ended
      assert.deepStrictEqual(seen.map((request) => "value" in request && request.value), [TICKS])
    }).pipe(onKvm({ timer: "Kernel" })))

  it.live("is not there unless it is asked for: the ports are the client's", () =>
    Effect.gen(function*() {
      const vm = yield* realMode([...outb(0x43, 0x34), ...stop])
      const seen = yield* recorder(vm, { ranges: [ports(0x40, 0x43)] })
      const running = yield* vm.start
      yield* running.ended
      assert.strictEqual(seen.length, 1)
    }).pipe(onKvm()))

  it.live("ticks anew after a reset, and not before it is programmed", () =>
    Effect.gen(function*() {
      const vm = yield* realMode(counting, { [TIMER_VECTOR]: tick })
      const seen = yield* recorder(vm, { ranges: [ports(DONE, DONE)] })
      const running = yield* vm.start
      yield* running.ended
      const again = yield* Effect.flatMap(running.pause, ({ reset }) => reset)
      const second = yield* again.start
      yield* second.ended
      assert.strictEqual(seen.length, 2)
    }).pipe(onKvm({ timer: "Kernel" })))

  it.live("needs the kernel's interrupt controllers", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        Effect.scoped(Layer.build(Kvm.layerWith({ timer: "Kernel", interruptController: "None" })))
      )
      assert.strictEqual(error.reason._tag, "BadOption")
      assert.match(error.message, /timer.*Kernel.*"None"/)
    }))
})
