/** The snapshot of a VM for people: who holds what, who would get what, and what nobody took. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Deferred, Effect, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import { Dispatcher } from "../../src/services/dispatch/Dispatcher.ts"
import * as IoRequestBuffer from "../../src/services/IoRequestBuffer.ts"
import { FakePage, Pending } from "../support/FakePage.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, TEST_PORTS } from "../support/machines.ts"

const make = (vcpus: number) => {
  const fake = new FakePage()
  const dispatcher = new Dispatcher(fake, vcpus, () => 0, undefined)
  const submit = (vcpu: number, request: Parameters<FakePage["submit"]>[1]) => {
    fake.submit(vcpu, request)
    dispatcher.serve(vcpu)
  }
  return { fake, submit, io: dispatcher.service, buffer: IoRequestBuffer.fromPage(dispatcher.page, dispatcher.pageUse) }
}

const isView = Schema.is(IoRequestBuffer.PageView)

describe("inspect", () => {
  it.effect("tells who holds a request, what it asks, and for how long", () =>
    Effect.gen(function*() {
      const { buffer, io, submit } = make(3)
      yield* io.register({ name: "disk", ranges: [IoRange.ports(0x1f0, 0x1f7)], handle: () => Effect.never })
      submit(1, { address: 0x1f7 })
      yield* TestClock.adjust(250)
      submit(0, { address: 0x1f0, direction: Slot.DirectionCode.Write, value: 7 })
      yield* TestClock.adjust(1000)
      const view = yield* buffer.inspect
      assert.deepStrictEqual(view.slots.map(({ ageMs, client, held }) => [held, client, ageMs]), [
        [true, "disk", 1000],
        [true, "disk", 1250],
        [false, undefined, undefined]
      ])
      assert.deepStrictEqual(view.slots.map(({ request }) => request?._tag), ["PortWrite", "PortRead", undefined])
      assert.isTrue(isView(view))
    }))

  it.effect("counts a VM's own time where it has one", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.stop), g.code(g.loop(1000, g.nop), g.inp(0x101), g.stop))
      const gate = yield* Deferred.make<void>()
      yield* vm.io.register({
        name: "held",
        ranges: [TEST_PORTS],
        handle: (request) =>
          request.vcpu === 0
            ? Effect.never
            : Effect.andThen(Effect.sleep(30), Effect.andThen(Deferred.succeed(gate, undefined), Effect.never))
      })
      yield* vm.start
      yield* Deferred.await(gate)
      const ages = (yield* vm.requests.inspect).slots.map(({ ageMs }) => ageMs!)
      assert.strictEqual(ages[1], 30)
      assert.isTrue(ages[0]! > 30 && ages[0]! < 31)
    }).pipe(onSimulated()))

  it.effect("a handler that is only starting holds its request, too", () =>
    Effect.gen(function*() {
      const { buffer, io, submit } = make(1)
      let view: IoRequestBuffer.PageView | undefined
      yield* io.register({
        name: "looks",
        ranges: [TEST_PORTS],
        handle: () => Effect.as(Effect.tap(buffer.inspect, (seen) => Effect.sync(() => view = seen)), 1)
      })
      submit(0, {})
      const [slot] = view!.slots
      assert.deepStrictEqual([slot?.held, slot?.client, slot?.ageMs], [true, "looks", undefined])
      assert.isTrue(isView(view))
    }))

  const PORTS = 8
  const ranges = [
    ...Array.from({ length: PORTS }, (_, i) => IoRange.ports(0x100 * i, 0x100 * i + 0xf)),
    IoRange.mmio(0x1000, 0x1fff),
    IoRange.mmio(0x8000_0000, 0x8000_0fff),
    IoRange.mmio(0xf_0000_0000, 0xf_0000_0fff),
    IoRange.pciFunction(0, 2, 7),
    IoRange.pciFunction(0, 3, 0),
    IoRange.pciFunction(1, 0, 0),
    IoRange.pciAny
  ]

  it.effect.prop("the ranges are sorted by space and address, whatever order they were registered in", [
    Arbitrary.array(Arbitrary.schema(Schema.Natural), { minLength: ranges.length, maxLength: ranges.length })
  ], ([order]) =>
    Effect.gen(function*() {
      const { buffer, io } = make(1)
      const shuffled = ranges.map((range, i) => ({ range, key: order[i]! })).toSorted((a, b) => a.key - b.key)
      for (const { range } of shuffled) {
        yield* io.register({ name: IoRange.format(range), ranges: [range], handle: () => Effect.succeed(0) })
      }
      assert.deepStrictEqual(
        (yield* buffer.inspect).ranges,
        ranges.map((range) => ({ client: IoRange.format(range), range }))
      )
    }), { arbitrary: { runs: 50 } })

  it.effect("keeps the last eight accesses that nobody owned, with the nearest ranges", () =>
    Effect.gen(function*() {
      const { buffer, io, submit } = make(1)
      yield* io.register({ name: "uart", ranges: [IoRange.ports(0x3f8, 0x3ff)], handle: () => Effect.succeed(0) })
      for (let port = 0x400; port < 0x40c; port++) submit(0, { address: port })
      const { nearMisses } = yield* buffer.inspect
      assert.deepStrictEqual<unknown>(
        nearMisses,
        Array.from({ length: 8 }, (_, i) => ({
          request: { _tag: "PortRead", vcpu: 0, port: 0x404 + i, size: 1 },
          nearest: [{ client: "uart", range: IoRange.ports(0x3f8, 0x3ff) }]
        }))
      )
    }))
})

describe("format", () => {
  it.effect("shows it as text", () =>
    Effect.gen(function*() {
      const { buffer, fake, io, submit } = make(6)
      const late = yield* Deferred.make<IoValue>()
      yield* io.register({
        name: "disk",
        ranges: [IoRange.ports(0x1f0, 0x1f7), IoRange.mmio(0xfee0_0000, 0xfee0_0fff)],
        handle: () => Deferred.await(late)
      })
      submit(0, { address: 0x1f7, direction: Slot.DirectionCode.Write, value: 0x20 })
      submit(1, { address: 0x300, size: 2 })
      yield* TestClock.adjust(12)
      yield* io.drain(0).pipe(Effect.ignore, Effect.forkChild({ startImmediately: true }))
      fake.submit(2, { address: 0x80 })
      fake.submit(3, { size: 3 })
      fake.setState(4, 77)
      assert.strictEqual(
        IoRequestBuffer.format(yield* buffer.inspect),
        [
          "vCPU  state       owner       epoch  age    client  request",
          "0     Processing  Service     1      12 ms  disk    write 1 byte 0x20 to port 0x1f7 (vCPU 0)",
          "1     Complete    Hypervisor  1      -      -       -",
          "2     Pending     Service     0      -      -       read 1 byte from port 0x80 (vCPU 2)",
          "3     Pending     Service     0      -      -       size 3 is not 1, 2, 4 or 8 bytes",
          "4     code 77     Nobody      0      -      -       -",
          "5     Free        Hypervisor  0      -      -       -",
          "",
          "ranges",
          "  ports 0x1f0-0x1f7 of disk",
          "  MMIO 0xfee00000-0xfee00fff of disk",
          "",
          "near misses",
          "  read 2 bytes from port 0x300 (vCPU 1); nearest: ports 0x1f0-0x1f7 of disk"
        ].join("\n")
      )
      assert.strictEqual(fake.state(2), Pending)
    }))

  it.effect("leaves out what there is none of", () =>
    Effect.gen(function*() {
      const { buffer, submit } = make(1)
      assert.strictEqual(
        IoRequestBuffer.format(yield* buffer.inspect),
        "vCPU  state  owner       epoch  age  client  request\n0     Free   Hypervisor  0      -    -       -"
      )
      submit(0, { address: 0x80 })
      assert.include(IoRequestBuffer.format(yield* buffer.inspect), "(vCPU 0); nearest: none")
    }))
})
