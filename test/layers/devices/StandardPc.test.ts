import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { GuestAddress, Port, VcpuId } from "../../../src/domain/Address.ts"
import * as IoRange from "../../../src/domain/IoRange.ts"
import { format, type IoRequest, type IoValue } from "../../../src/domain/IoRequest.ts"
import * as MmioScratch from "../../../src/layers/devices/MmioScratch.ts"
import * as PciConfigSpace from "../../../src/layers/devices/PciConfigSpace.ts"
import * as PostCode from "../../../src/layers/devices/PostCode.ts"
import * as StandardPc from "../../../src/layers/devices/StandardPc.ts"
import { IoDispatcher } from "../../../src/services/IoDispatcher.ts"
import { Machine } from "../../../src/services/Machine.ts"
import { type FakeMachine, fakeMachine, twoMachines } from "./FakeMachine.ts"

const readPci = (guest: FakeMachine, bus: number, device: number, register: number, size = 4): number => {
  guest.write(0xcf8, 0x8000_0000 + (bus << 16 | device << 11 | register & 0xfc), 4)
  return guest.read(0xcfc + (register & 3), size)
}

describe("PciConfigSpace", () => {
  it.effect("shows an empty bus, and nothing that nobody handles", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(PciConfigSpace.make())
      for (let device = 0; device < 32; device++) {
        assert.strictEqual(readPci(guest, 0, device, 0), 0xffff_ffff)
        assert.strictEqual(readPci(guest, 0, device, 0x0e, 1), 0xff)
      }
      guest.write(0xcfc, 0x1234, 2)
      assert.strictEqual(readPci(guest, 0, 31, 0, 2), 0xffff)
      assert.deepStrictEqual(yield* guest.machine.io.recentEvents, [])
    }))

  it.effect("gives way to a device that claims one function", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(PciConfigSpace.make())
      yield* guest.machine.io.register({
        name: "bridge",
        ranges: [IoRange.pciFunction(0, 0, 0)],
        handle: () => Effect.succeed(0x1237_8086)
      })
      assert.deepStrictEqual([readPci(guest, 0, 0, 0), readPci(guest, 0, 1, 0)], [0x1237_8086, 0xffff_ffff])
    }))
})

describe("PostCode", () => {
  it.effect("remembers the last byte until a reset", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const post = yield* guest.provide(PostCode.make())
      guest.write(0x80, 0x11)
      guest.write(0x80, 0xa5)
      assert.strictEqual(yield* post.code, 0xa5)
      assert.strictEqual(guest.read(0x80), 0xa5)
      yield* guest.reset
      assert.strictEqual(yield* post.code, 0)
    }))
})

describe("StandardPc", () => {
  it.effect("puts in what a PC has", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const pc = yield* guest.provide(StandardPc.make({ scratch: {} }))
      const names = (yield* guest.machine.io.counts).map((count) => count.client)
      assert.deepStrictEqual(names, ["uart0", "pit", "rtc", "pci", "reset", "post-code", "debug-exit", "scratch"])
      guest.write(0x3f8, 0x41)
      guest.write(0xf4, 3)
      assert.strictEqual(yield* pc.debugExit.exit, 3)
      assert.strictEqual((yield* pc.scratch!.contents).length, 4096)
    }))

  it.effect("has no scratch registers unless they are asked for, and takes options", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const pc = yield* guest.provide(StandardPc.make({ uart: { name: "console" }, debugExit: { port: 0x501 } }))
      assert.strictEqual(pc.scratch, undefined)
      assert.strictEqual(pc.uart.name, "console")
      assert.strictEqual(guest.mmioRead(0xe000_0000, 4), 0xffff_ffffn)
      guest.write(0x501, 0)
      assert.strictEqual(guest.ends.length, 1)
    }))

  it.effect("is refused whole when one device is", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(MmioScratch.make())
      const error = yield* Effect.flip(guest.provide(StandardPc.make({ scratch: { name: "second" } })))
      assert.strictEqual(error.reason._tag, "Overlap")
      assert.strictEqual((yield* guest.machine.io.counts).length, 1)
      yield* guest.provide(StandardPc.make())
    }))

  it.effect("takes everything out when its scope closes", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scope = yield* Scope.make()
      yield* guest.provide(StandardPc.make()).pipe(Scope.provide(scope))
      guest.write(0x43, 0x34)
      guest.write(0x40, 0x9c)
      guest.write(0x40, 0x2e)
      guest.write(0x70, 0x0b)
      guest.write(0x71, 0x12)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* guest.machine.io.counts, [])
      assert.strictEqual(guest.timeline.nextDeadline, Infinity)
    }))

  it.effect("is another PC for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const [one, two] = yield* twoMachines
      const layer = StandardPc.layer()
      yield* one.provide(Layer.build(layer))
      yield* two.provide(Layer.build(layer))
      one.write(0x80, 7)
      assert.deepStrictEqual([one.read(0x80), two.read(0x80)], [7, 0])
    }))

  it.effect("answers what guests ask often without a fiber: the answer is there before the handler returns", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const handlers: Array<(request: IoRequest) => Effect.Effect<IoValue, unknown, unknown>> = []
      const io = IoDispatcher.of({
        ...guest.machine.io,
        register: (options) => {
          handlers.push(options.handle)
          return guest.machine.io.register(options)
        }
      })
      yield* guest.provide(
        StandardPc.make({ scratch: {} }).pipe(Effect.updateService(Machine, (of) => ({ ...of, io })))
      )
      const vcpu = VcpuId.make(0)
      const requests: ReadonlyArray<readonly [handler: number, request: IoRequest]> = [
        ...[0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff].flatMap((port) => accesses(0, port)),
        ...[0x40, 0x41, 0x42, 0x43, 0x61].flatMap((port) => accesses(1, port)),
        ...[0x70, 0x71].flatMap((port) => accesses(2, port)),
        [3, { _tag: "PciRead", vcpu, bus: 0, device: 0, function: 0, register: 0, size: 4 }],
        ...[0x60, 0x64, 0x92, 0xcf9].flatMap((port) => accesses(4, port)),
        ...accesses(5, 0x80),
        [7, { _tag: "MmioRead", vcpu, address: GuestAddress.make(0xe000_0000), size: 8 }],
        [7, { _tag: "MmioWrite", vcpu, address: GuestAddress.make(0xe000_0000), size: 8, value: 1n }]
      ]
      for (const [handler, request] of requests) {
        assert.isTrue(Exit.isExit(handlers[handler]!(request)), format(request))
      }
    }))
})

const accesses = (handler: number, port: number): Array<readonly [handler: number, request: IoRequest]> => {
  const at = { vcpu: VcpuId.make(0), port: Port.make(port), size: 1 } as const
  return [[handler, { _tag: "PortRead", ...at }], [handler, { _tag: "PortWrite", ...at, value: 0 }]]
}
