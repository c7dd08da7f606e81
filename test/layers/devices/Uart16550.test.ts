import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Schema, Scope, Stream } from "effect"
import * as Uart16550 from "../../../src/layers/devices/Uart16550.ts"
import { type FakeMachine, fakeMachine, twoMachines } from "./FakeMachine.ts"

const COM1 = 0x3f8
const FCR = COM1 + 2
const LSR = COM1 + 5

const type = (guest: FakeMachine, text: string, base = COM1) => {
  for (const byte of new TextEncoder().encode(text)) guest.write(base, byte)
}

/** What a polling guest reads. */
const drain = (guest: FakeMachine, base = COM1): Array<number> => {
  const bytes: Array<number> = []
  while ((guest.read(base + 5) & 0x01) !== 0) bytes.push(guest.read(base))
  return bytes
}

const text = (pieces: Iterable<Uint8Array>): string => new TextDecoder().decode(Buffer.concat([...pieces]))

describe("Uart16550", () => {
  it.effect("gives all that the guest wrote, from the beginning, and ends with the device", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scope = yield* Scope.make()
      const uart = yield* guest.provide(Uart16550.make()).pipe(Scope.provide(scope))
      type(guest, "early, ")
      const reader = yield* Effect.forkChild(Stream.runCollect(uart.output), { startImmediately: true })
      type(guest, "héllo\n")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(text(yield* Fiber.join(reader)), "early, héllo\n")
      assert.strictEqual(guest.read(LSR), 0xff)
    }))

  it.effect("gives each byte to onOutput at once, and then has no output", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const bytes: Array<number> = []
      const uart = yield* guest.provide(Uart16550.make({ onOutput: (byte) => bytes.push(byte) }))
      type(guest, "ab")
      assert.deepStrictEqual(bytes, [0x61, 0x62])
      assert.deepStrictEqual(yield* Stream.runCollect(uart.output), [])
    }))

  it.effect.prop(
    "gives the guest all that the host sends, in order, whatever the pieces",
    [Schema.Array(Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))))],
    ([pieces]) =>
      Effect.gen(function*() {
        const guest = yield* fakeMachine()
        const uart = yield* guest.provide(Uart16550.make())
        guest.write(FCR, 0x01)
        for (const piece of pieces) yield* uart.send(Uint8Array.from(piece))
        assert.deepStrictEqual(drain(guest), pieces.flat())
      })
  )

  it.effect("sends text as UTF-8", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const uart = yield* guest.provide(Uart16550.make())
      yield* uart.send("zß€")
      assert.deepStrictEqual(drain(guest), [...new TextEncoder().encode("zß€")])
    }))

  it.effect("makes a stream of input wait while the guest does not read", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const uart = yield* guest.provide(Uart16550.make())
      const piece = new Uint8Array(4096)
      let pulled = 0
      const source = Stream.tap(Stream.forever(Stream.succeed(piece)), () => Effect.sync(() => pulled++)).pipe(
        Stream.take(40)
      )
      const writer = yield* Effect.forkChild(Stream.run(source, uart.input), { startImmediately: true })
      for (let turn = 0; turn < 200; turn++) yield* Effect.yieldNow
      assert.isBelow(pulled * 4096, Uart16550.INPUT_BYTES_MAX + 3 * 4096)
      let read = 0
      while (read < 40 * 4096) {
        read += drain(guest).length
        yield* Effect.yieldNow
      }
      yield* Fiber.join(writer)
      assert.strictEqual(read, 40 * 4096)
    }))

  it.effect("lets go of who types when the device goes", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scope = yield* Scope.make()
      const uart = yield* guest.provide(Uart16550.make()).pipe(Scope.provide(scope))
      const writer = yield* Effect.forkChild(
        Stream.run(Stream.succeed(new Uint8Array(Uart16550.INPUT_BYTES_MAX + 100)), uart.input),
        { startImmediately: true }
      )
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(writer)
      yield* Stream.run(Stream.succeed(new Uint8Array(Uart16550.INPUT_BYTES_MAX + 100)), uart.input)
      assert.isFalse(guest.lines.isHigh(4))
    }))

  it.effect("drives its interrupt line with what is there, at once", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const scope = yield* Scope.make()
      const uart = yield* guest.provide(Uart16550.make()).pipe(Scope.provide(scope))
      guest.write(COM1 + 1, 0x01)
      assert.isFalse(guest.lines.isHigh(4))
      yield* uart.send("x")
      assert.isTrue(guest.lines.isHigh(4))
      guest.read(COM1)
      assert.isFalse(guest.lines.isHigh(4))
      yield* uart.send("y")
      yield* guest.reset
      assert.isFalse(guest.lines.isHigh(4))
      guest.write(COM1 + 1, 0x02)
      assert.isTrue(guest.lines.isHigh(4))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(guest.lines.isHigh(4))
    }))

  it.effect("takes wide accesses as byte accesses to consecutive registers", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Uart16550.make())
      // LCR, MCR, LSR, MSR of one access.
      guest.write(COM1 + 3, 0xffff_0b03, 4)
      assert.strictEqual(guest.read(COM1 + 3, 4), 0xb060_0b03)
      assert.strictEqual(guest.read(COM1 + 3, 2), 0x0b03)
    }))

  it.effect("passes Linux's probe: registers, loopback, identification, FIFO size, THRE", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Uart16550.make())
      const [ier, iir, lcr, mcr, msr] = [COM1 + 1, COM1 + 2, COM1 + 3, COM1 + 4, COM1 + 6]
      guest.write(ier, 0)
      assert.strictEqual(guest.read(ier) & 0x0f, 0)
      guest.write(ier, 0x0f)
      assert.strictEqual(guest.read(ier) & 0x0f, 0x0f)
      guest.write(ier, 0)
      guest.write(mcr, 0x1a)
      assert.strictEqual(guest.read(msr) & 0xf0, 0x90)
      guest.write(mcr, 0)
      guest.write(lcr, 0xbf)
      guest.write(iir, 0)
      guest.write(lcr, 0)
      guest.write(FCR, 0x01)
      assert.strictEqual(guest.read(iir) >>> 6, 3)
      // Not a 16650, 16850, 16750, Xscale or NatSemi part.
      for (const mode of [0x80, 0xbf]) {
        guest.write(lcr, mode)
        assert.notStrictEqual(guest.read(iir), 0)
      }
      guest.write(lcr, 0)
      guest.write(FCR, 0x21)
      assert.strictEqual(guest.read(iir) >>> 5, 6)
      guest.write(ier, 0x40)
      assert.strictEqual(guest.read(ier), 0)
      guest.write(FCR, 0x07)
      guest.write(mcr, 0x10)
      for (let i = 0; i < 256; i++) guest.write(COM1, i)
      assert.strictEqual(drain(guest).length, 16)
      guest.write(mcr, 0)
      guest.write(ier, 0x02)
      assert.strictEqual(guest.read(iir) & 0x01, 0)
      guest.write(ier, 0)
      guest.write(ier, 0x02)
      assert.strictEqual(guest.read(iir) & 0x01, 0)
    }))

  it.effect("answers at the ports and the line it is given", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      const uart = yield* guest.provide(Uart16550.make({ base: 0x2f8, irq: 3, name: "uart1" }))
      guest.write(0x2f8 + 1, 0x01)
      yield* uart.send("x")
      assert.isTrue(guest.lines.isHigh(3))
      assert.deepStrictEqual(drain(guest, 0x2f8), [0x78])
      assert.deepStrictEqual(yield* guest.machine.io.counts, [{ client: "uart1", requests: 4 }])
    }))

  it.effect("is refused where another device is, and leaves nothing", () =>
    Effect.gen(function*() {
      const guest = yield* fakeMachine()
      yield* guest.provide(Uart16550.make())
      const error = yield* Effect.flip(guest.provide(Uart16550.make({ base: 0x3f9, name: "late" })))
      assert.strictEqual(error.reason._tag, "Overlap")
      assert.include(error.message, "\"late\"")
    }))

  it.effect("is another device for each machine that one layer value is given to", () =>
    Effect.gen(function*() {
      const guests = yield* twoMachines
      const layer = Uart16550.layer()
      const uarts = yield* Effect.forEach(guests, (guest) =>
        Effect.flatMap(
          guest.provide(Layer.build(layer)),
          (context) => Effect.provide(Uart16550.Uart16550, context)
        ))
      assert.notStrictEqual(uarts[0], uarts[1])
      yield* Effect.forEach(uarts, (uart, i) => uart.send(`to ${i}`))
      assert.deepStrictEqual(guests.map((guest) => text([Uint8Array.from(drain(guest))])), ["to 0", "to 1"])
    }))
})
