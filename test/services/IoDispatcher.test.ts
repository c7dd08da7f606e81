import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { DispatchEvent } from "../../src/domain/DispatchEvent.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import { RequestTransition } from "../../src/domain/RequestState.ts"
import { Dispatcher } from "../../src/services/dispatch/Dispatcher.ts"
import type { IoDispatcherError } from "../../src/services/IoDispatcher.ts"
import { ALL_ONES, constant, makeDispatcher } from "../support/dispatcher.ts"
import { Complete, FakePage, Pending, Processing } from "../support/FakePage.ts"
import { brief, turns } from "../support/machines.ts"

const { Mmio, PciConfig } = Slot.RequestTypeCode
const { Write } = Slot.DirectionCode

const make = (vcpus = 4) => makeDispatcher(vcpus)

type Setup = ReturnType<typeof make>

const askPci = (setup: Setup, bus: number, device: number, fn: number, register = 0, size = 4) => {
  setup.fake.submit(0, { type: PciConfig, size })
  setup.fake.setWord(0, Slot.REQUEST_PCI_BUS_OFFSET, bus)
  setup.fake.setWord(0, Slot.REQUEST_PCI_DEVICE_OFFSET, device)
  setup.fake.setWord(0, Slot.REQUEST_PCI_FUNCTION_OFFSET, fn)
  setup.fake.setWord(0, Slot.REQUEST_PCI_REGISTER_OFFSET, register)
  setup.dispatcher.serve(0)
  return setup.take()
}

const reasonOf = <A, R>(effect: Effect.Effect<A, IoDispatcherError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

const tags = (events: ReadonlyArray<DispatchEvent>) => events.map((event) => event._tag)

describe("IoDispatcher", () => {
  describe("routing", () => {
    it.effect("each space has its own clients", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register(constant("ports", 1, IoRange.ports(0x1000, 0x1fff)))
        yield* setup.io.register(constant("mmio", 2, IoRange.mmio(0x1000, 0x1fff)))
        yield* setup.io.register(constant("function", 3, IoRange.pciFunction(0, 1, 0)))
        yield* setup.io.register(constant("rest", 4, IoRange.pciAny))
        assert.strictEqual(setup.ask({ address: 0x1000 }), 1)
        assert.strictEqual(setup.ask({ address: 0x1000, type: Mmio }), 2)
        assert.strictEqual(askPci(setup, 0, 1, 0), 3)
        assert.strictEqual(askPci(setup, 0, 1, 1), 4)
        assert.strictEqual(askPci(setup, 255, 31, 7, 0xffc), 4)
        assert.deepStrictEqual(yield* setup.io.counts, [
          { client: "ports", requests: 1 },
          { client: "mmio", requests: 1 },
          { client: "function", requests: 1 },
          { client: "rest", requests: 2 }
        ])
      }))

    const Size = Schema.Literals([1, 2, 4])
    const Address = Schema.Int.check(Schema.isBetween({ minimum: 0xf8, maximum: 0x128 }))

    it.effect.prop(
      "an access wholly inside a range is its client's, any other goes whole to the default client (law 8)",
      [
        Address,
        Size,
        Schema.Boolean
      ],
      ([address, size, isMmio]) =>
        Effect.gen(function*() {
          const setup = make()
          const range = isMmio ? IoRange.mmio : IoRange.ports
          yield* setup.io.register(constant("left", 1, range(0x100, 0x10f)))
          yield* setup.io.register(constant("right", 2, range(0x110, 0x11f)))
          const seen: Array<IoRequest> = []
          yield* setup.io.registerDefault({
            name: "default",
            handle: (request) =>
              Effect.sync(() => {
                seen.push(request)
                return 3
              })
          })
          const last = address + size - 1
          const owner = address >= 0x100 && last <= 0x10f ? 1 : address >= 0x110 && last <= 0x11f ? 2 : 3
          const type = isMmio ? Mmio : Slot.RequestTypeCode.PortIo
          assert.strictEqual(setup.ask({ address, size, type }), owner)
          if (owner === 3) {
            assert.deepStrictEqual(seen.map(brief), [`r${size} ${isMmio ? "mmio" : "port"} ${address.toString(16)}`])
          }
          assert.strictEqual(
            setup.ask({ address, size, type, direction: Write, value: 5 }),
            5,
            "writes go the same way"
          )
          assert.deepStrictEqual(
            (yield* setup.io.counts).find(({ client }) => client === "default")?.requests ?? 0,
            owner === 3 ? 2 : 0
          )
        })
    )

    it.effect("nobody's access reads all-ones of its size, is dropped as a write, and is told with the nearest ranges", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register(constant("far", 1, IoRange.ports(0x10, 0x1f)))
        yield* setup.io.register(constant("near", 1, IoRange.ports(0x100, 0x107)))
        yield* setup.io.register(constant("nearest", 1, IoRange.ports(0x10a, 0x10b)))
        yield* setup.io.register(constant("other space", 1, IoRange.mmio(0x108, 0x109)))
        assert.strictEqual(setup.ask({ address: 0x109, size: 1 }), 0xff)
        assert.strictEqual(setup.ask({ address: 0x107, size: 2 }), 0xffff)
        assert.strictEqual(setup.ask({ address: 0x109, size: 1, direction: Write, value: 7 }), 7)
        assert.strictEqual(setup.ask({ type: Mmio, address: 0xf000_0000, size: 8 }), ALL_ONES)
        assert.strictEqual(setup.fake.answer(0)[1], ALL_ONES)
        assert.strictEqual(askPci(setup, 1, 2, 3), ALL_ONES)
        const events = yield* setup.io.recentEvents
        assert.deepStrictEqual(tags(events), Array.from({ length: 5 }, () => "Unhandled"))
        const first = events[0]!
        if (first._tag !== "Unhandled") return assert.fail()
        assert.deepStrictEqual(first.nearest.map(({ client }) => client), ["nearest", "near"])
        assert.isTrue(events.every(Schema.is(DispatchEvent)))
        assert.deepStrictEqual((yield* setup.io.counts).at(-1), { client: "(nobody)", requests: 5 })
        assert.deepStrictEqual(setup.notified.length, 5, "every vCPU goes on (law 4)")
      }))

    it.effect("a malformed request is answered with all-ones and told", () =>
      Effect.gen(function*() {
        const setup = make()
        assert.strictEqual(setup.ask({ size: 3 }), ALL_ONES)
        assert.deepStrictEqual<unknown>(yield* setup.io.recentEvents, [
          { _tag: "Malformed", vcpu: 0, problem: "size 3 is not 1, 2, 4 or 8 bytes" }
        ])
        assert.deepStrictEqual(setup.notified, [0])
      }))

    it.effect("an upcall's hint is not trusted", () =>
      Effect.gen(function*() {
        const setup = make(2)
        yield* setup.io.register(constant("client", 7, IoRange.ports(0, 0xffff)))
        setup.fake.submit(3, {})
        for (const vcpu of [-1, 2, 3, 16, 0.5, NaN, Infinity, 2 ** 31]) setup.dispatcher.serve(vcpu)
        assert.deepStrictEqual(setup.fake.accesses, [], "a slot that the VM has not is never looked at")
        setup.fake.submit(1, {})
        setup.dispatcher.serve(undefined)
        assert.strictEqual(setup.take(1), 7)
      }))
  })

  describe("registration", () => {
    it.effect("an overlap is refused, names both, and changes nothing (law 7)", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register(constant("first", 1, IoRange.ports(0x100, 0x107), IoRange.mmio(0x1000, 0x1fff)))
        const wanted = [IoRange.ports(0x200, 0x20f), IoRange.ports(0x107, 0x108)]
        assert.deepStrictEqual(yield* reasonOf(setup.io.register(constant("second", 2, ...wanted))), {
          _tag: "Overlap",
          client: "second",
          range: IoRange.ports(0x107, 0x108),
          owner: "first",
          owned: IoRange.ports(0x100, 0x107)
        })
        assert.strictEqual(setup.ask({ address: 0x200 }), 0xff, "nor was its first range taken")
        assert.strictEqual(setup.ask({ address: 0x107 }), 1)
        assert.deepStrictEqual((yield* setup.io.counts).map(({ client }) => client), ["first", "(nobody)"])
        yield* setup.io.register(constant("third", 3, IoRange.ports(0x200, 0x20f)))
        assert.strictEqual(setup.ask({ address: 0x200 }), 3)
      }))

    it.effect("a client's own ranges may not overlap either", () =>
      Effect.gen(function*() {
        const { io } = make()
        const range = IoRange.ports(0x100, 0x107)
        const reason = yield* reasonOf(io.register(constant("twice", 1, range, range)))
        assert.strictEqual(reason._tag, "Overlap")
      }))

    it.effect("ranges that are none are refused, also when the types were cast away (CVE-2017-15591)", () =>
      Effect.gen(function*() {
        const setup = make()
        const bad: ReadonlyArray<unknown> = [
          { _tag: "Port", start: 0x3ff, end: 0x3f8 },
          { _tag: "Port", start: 0, end: 0x1_0000 },
          { _tag: "Port", start: 0, end: Infinity },
          { _tag: "Mmio", start: 0x2000, end: 0x1000 },
          { _tag: "Mmio", start: -1, end: 0x1000 },
          { _tag: "PciFunction", bus: 0, device: 32, function: 0 },
          { _tag: "Nonsense" }
        ]
        const good = IoRange.ports(0x10, 0x1f)
        const client = yield* setup.io.register(constant("good", 1, good))
        for (const range of bad as ReadonlyArray<IoRange.IoRange>) {
          const refusals = yield* Effect.all([
            reasonOf(setup.io.register(constant("bad", 1, range))),
            reasonOf(client.addRange(range)),
            reasonOf(client.moveRange(good, range))
          ])
          assert.deepStrictEqual(refusals.map(({ _tag }) => _tag), ["BadRange", "BadRange", "BadRange"])
        }
        assert.strictEqual(setup.ask({ address: 0x10 }), 1)
      }))

    it.effect("ranges are added, moved and given back by name", () =>
      Effect.gen(function*() {
        const setup = make()
        const client = yield* setup.io.register(constant("client", 1, IoRange.ports(0x100, 0x10f)))
        yield* setup.io.register(constant("other", 2, IoRange.ports(0x200, 0x20f)))
        yield* client.addRange(IoRange.ports(0x300, 0x30f))
        assert.strictEqual(setup.ask({ address: 0x300 }), 1)
        yield* client.moveRange(IoRange.ports(0x100, 0x10f), IoRange.ports(0x108, 0x117))
        assert.deepStrictEqual([0x107, 0x108, 0x117].map((address) => setup.ask({ address })), [0xff, 1, 1])
        yield* client.removeRange(IoRange.ports(0x300, 0x30f))
        assert.strictEqual(setup.ask({ address: 0x300 }), 0xff)
        for (const range of [IoRange.ports(0x300, 0x30f), IoRange.ports(0x108, 0x110), IoRange.ports(0x200, 0x20f)]) {
          assert.deepStrictEqual(yield* reasonOf(client.removeRange(range)), {
            _tag: "NoSuchRange",
            client: "client",
            range
          })
          assert.strictEqual(
            (yield* reasonOf(client.moveRange(range, IoRange.ports(0x400, 0x400))))._tag,
            "NoSuchRange"
          )
        }
        assert.strictEqual(setup.ask({ address: 0x200 }), 2, "another's range cannot be taken")
      }))

    it.effect("a move that fails keeps the old range, in each space", () =>
      Effect.gen(function*() {
        const setup = make()
        const mine = [IoRange.ports(0x100, 0x10f), IoRange.mmio(0x1000, 0x1fff), IoRange.pciFunction(0, 1, 0)] as const
        const taken = [IoRange.ports(0x200, 0x20f), IoRange.mmio(0x2000, 0x2fff), IoRange.pciFunction(0, 2, 0)] as const
        const client = yield* setup.io.register(constant("client", 1, ...mine))
        yield* setup.io.register(constant("owner", 2, ...taken))
        for (const [i, from] of mine.entries()) {
          const to = taken[i]!
          const reason = yield* reasonOf(client.moveRange(from, to))
          assert.deepStrictEqual(reason, { _tag: "Overlap", client: "client", range: to, owner: "owner", owned: to })
        }
        assert.strictEqual(setup.ask({ address: 0x100 }), 1)
        assert.strictEqual(setup.ask({ address: 0x1000, type: Mmio }), 1)
        assert.strictEqual(askPci(setup, 0, 1, 0), 1)
        assert.strictEqual(askPci(setup, 0, 2, 0), 2)
      }))

    it.effect("there is one default client at a time", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        yield* Scope.provide(setup.io.registerDefault({ name: "one", handle: () => Effect.succeed(1) }), scope)
        const second = setup.io.registerDefault({ name: "two", handle: () => Effect.succeed(2) })
        assert.deepStrictEqual(yield* reasonOf(second), { _tag: "DefaultTaken", client: "two", owner: "one" })
        assert.strictEqual(setup.ask({}), 1)
        yield* Scope.close(scope, Exit.void)
        yield* second
        assert.strictEqual(setup.ask({}), 2)
      }))

    it.effect("a client that is gone leaves its addresses free for the next", () =>
      Effect.gen(function*() {
        const setup = make()
        const ranges = [IoRange.ports(0x100, 0x10f), IoRange.mmio(0x1000, 0x1fff), IoRange.pciAny]
        for (const value of [1, 2, 3]) {
          yield* Effect.scoped(Effect.gen(function*() {
            yield* setup.io.register(constant(`client ${value}`, value, ...ranges))
            assert.strictEqual(setup.ask({ address: 0x100 }), value)
            assert.strictEqual(askPci(setup, 0, 0, 0), value)
          }))
        }
        assert.strictEqual(setup.ask({ address: 0x100 }), 0xff)
        assert.deepStrictEqual(yield* setup.io.counts, [{ client: "(nobody)", requests: 1 }])
      }))
  })

  describe("PCI configuration by ports", () => {
    const select = (setup: Setup, bus: number, device: number, fn: number, register: number) =>
      setup.ask({
        address: 0xcf8,
        size: 4,
        direction: Write,
        value: 0x8000_0000 + bus * 0x1_0000 + device * 0x800 + fn * 0x100 + register
      })

    it.effect("0xCF8 selects, 0xCFC to 0xCFF reach the function, whole and in parts", () =>
      Effect.gen(function*() {
        const setup = make()
        const seen: Array<string> = []
        yield* setup.io.register({
          name: "function",
          ranges: [IoRange.pciFunction(3, 17, 5)],
          handle: (request) =>
            Effect.sync((): IoValue => {
              seen.push(brief(request))
              return 0x4433_2211
            })
        })
        select(setup, 3, 17, 5, 0x40)
        assert.strictEqual(setup.ask({ address: 0xcfc, size: 4 }), 0x4433_2211)
        assert.strictEqual(setup.ask({ address: 0xcfe, size: 2 }), 0x2211)
        setup.ask({ address: 0xcff, size: 1, direction: Write, value: 0x99 })
        assert.deepStrictEqual(seen, ["r4 pci 3:17.5 40", "r2 pci 3:17.5 42", "w1 pci 3:17.5 43 99"])
      }))

    it.effect("the address register reads back, and answers without a client", () =>
      Effect.gen(function*() {
        const setup = make()
        select(setup, 1, 2, 3, 4)
        assert.strictEqual(setup.ask({ address: 0xcf8, size: 4 }), 0x8001_1304)
        assert.deepStrictEqual(yield* setup.io.recentEvents, [])
      }))

    it.effect("with the enable bit clear the data window is all-ones, whoever is there", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register(constant("any", 1, IoRange.pciAny))
        setup.ask({ address: 0xcf8, size: 4, direction: Write, value: 0 })
        assert.strictEqual(setup.ask({ address: 0xcfc, size: 4 }), ALL_ONES)
        assert.strictEqual(setup.ask({ address: 0xcfd, size: 1 }), 0xff)
        assert.deepStrictEqual(yield* setup.io.counts, [{ client: "any", requests: 0 }])
      }))

    it.effect("narrow accesses at 0xCF8 and accesses over the window's end are plain ports", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register(constant("reset port", 5, IoRange.ports(0xcf9, 0xcf9)))
        yield* setup.io.register(constant("window", 6, IoRange.ports(0xcfc, 0xd0f)))
        assert.strictEqual(setup.ask({ address: 0xcf9, size: 1 }), 5)
        assert.strictEqual(setup.ask({ address: 0xcf8, size: 1 }), 0xff)
        assert.strictEqual(setup.ask({ address: 0xcfe, size: 4 }), 6)
      }))

    it.effect("the register is the VM's: all vCPUs share it, another VM has its own", () =>
      Effect.gen(function*() {
        const [one, two] = [make(), make()]
        select(one, 1, 2, 3, 4)
        assert.strictEqual(one.ask({ address: 0xcf8, size: 4 }, 3), 0x8001_1304)
        assert.strictEqual(two.ask({ address: 0xcf8, size: 4 }), 0)
      }))
  })

  describe("handlers", () => {
    it.effect("what is none of a handler's business: it fails, dies, throws, is interrupted; the guest reads all-ones", () =>
      Effect.gen(function*() {
        const setup = make()
        const bad = [
          () => Effect.fail("no such register"),
          () => Effect.die(new Error("bug")),
          (): Effect.Effect<IoValue> => {
            throw new Error("thrown")
          },
          () => Effect.interrupt,
          () => Effect.andThen(Effect.yieldNow, Effect.fail("late")),
          () => Effect.andThen(Effect.yieldNow, Effect.die("late defect"))
        ]
        for (const [i, handle] of bad.entries()) {
          yield* setup.io.register({ name: `bad ${i}`, ranges: [IoRange.ports(i, i)], handle })
        }
        yield* setup.io.register(constant("good", 7, IoRange.ports(0x100, 0x1ff)))
        for (let i = 0; i < bad.length; i++) {
          let answer = setup.ask({ address: i })
          assert.strictEqual(setup.ask({ address: 0x100 }, 1), 7, "others go on (law 5)")
          yield* turns(3)
          answer ??= setup.take()
          assert.strictEqual(answer, 0xff, `handler ${i}`)
        }
        const events = yield* setup.io.recentEvents
        assert.deepStrictEqual(tags(events), bad.map(() => "HandlerFailed"))
        const problems = events.map((event) =>
          event._tag === "HandlerFailed" ? `${event.client}: ${event.problem}` : ""
        )
        for (const [i, text] of ["no such register", "bug", "thrown", "interrupt", "late", "late defect"].entries()) {
          assert.include(problems[i]!, `bad ${i}: `)
          assert.include(problems[i]!, text)
        }
        assert.isTrue(events.every(Schema.is(DispatchEvent)))
      }))

    it.effect("handlers that suspend go on at once beside each other, and complete in their own order", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "slow",
          ranges: [IoRange.ports(0, 0xff)],
          handle: (request) => Effect.as(Effect.sleep((4 - request.vcpu) * 10), request.vcpu)
        })
        for (let vcpu = 0; vcpu < 4; vcpu++) assert.isUndefined(setup.ask({ address: 1 }, vcpu))
        assert.deepStrictEqual(
          [0, 1, 2, 3].map((vcpu) => setup.fake.state(vcpu)),
          Array.from({ length: 4 }, () => Processing)
        )
        for (const vcpu of [3, 2, 1, 0]) {
          yield* TestClock.adjust(10)
          assert.strictEqual(setup.take(vcpu), vcpu)
        }
        assert.deepStrictEqual(setup.notified, [3, 2, 1, 0])
      }))

    it.effect("a handler of more operations than one run of a fiber takes is slow, but answered", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "long",
          ranges: [IoRange.ports(0, 0xff)],
          handle: () =>
            Effect.gen(function*() {
              let sum = 0
              for (let i = 0; i < 5000; i++) sum += yield* Effect.sync(() => 1)
              return sum & 0xff
            })
        })
        let answer = setup.ask({ address: 1 })
        assert.isUndefined(answer)
        for (let i = 0; i < 50 && answer === undefined; i++) {
          yield* turns(1)
          answer = setup.take()
        }
        assert.strictEqual(answer, 5000 & 0xff)
      }))

    it.effect("a handler sees the services of the fiber that registered it", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "clock",
          ranges: [IoRange.ports(0, 0xff)],
          handle: () => Effect.clockWith((clock) => clock.currentTimeMillis)
        })
        yield* TestClock.setTime(42)
        assert.strictEqual(setup.ask({ address: 1 }), 42)
      }))

    it.effect("a handler may register, move and remove ranges, its own too (law 13)", () =>
      Effect.gen(function*() {
        const setup = make()
        const client = yield* Deferred.make<Effect.Success<ReturnType<typeof setup.io.register>>>()
        const scope = yield* Effect.scope
        const registered = yield* setup.io.register({
          name: "movable",
          ranges: [IoRange.ports(0x100, 0x10f)],
          handle: (request) =>
            Effect.gen(function*() {
              const self = yield* Deferred.await(client)
              if (!("port" in request)) return
              switch (request.port & 0xf) {
                case 0:
                  return yield* self.moveRange(IoRange.ports(0x100, 0x10f), IoRange.ports(0x200, 0x20f))
                case 1:
                  return yield* self.addRange(IoRange.ports(0x300, 0x30f))
                case 2:
                  return yield* self.removeRange(IoRange.ports(0x200, 0x20f))
                case 3:
                  yield* Scope.provide(setup.io.register(constant("child", 9, IoRange.ports(0x400, 0x40f))), scope)
                  return 3
              }
            })
        })
        yield* Deferred.succeed(client, registered)
        setup.ask({ address: 0x100, direction: Write })
        assert.strictEqual(setup.ask({ address: 0x105 }), 0xff)
        setup.ask({ address: 0x201, direction: Write })
        assert.strictEqual(setup.ask({ address: 0x303 }), 3)
        assert.strictEqual(setup.ask({ address: 0x400 }), 9)
        setup.ask({ address: 0x302, direction: Write })
        assert.deepStrictEqual(tags(yield* setup.io.recentEvents), ["Unhandled"])
        assert.strictEqual(setup.ask({ address: 0x205 }), 0xff)
      }))

    it.effect("a handler's request is what was read, whatever the page says later", () =>
      Effect.gen(function*() {
        const setup = make()
        let seen: IoRequest | undefined
        yield* setup.io.register({
          name: "slow",
          ranges: [IoRange.ports(0, 0xff)],
          handle: (request) =>
            Effect.andThen(
              Effect.sleep(10),
              Effect.sync((): IoValue => {
                seen = request
                return 0x1122_3344
              })
            )
        })
        setup.ask({ address: 0x10, size: 1 })
        setup.fake.setWord(0, Slot.REQUEST_ADDRESS_OFFSET, 0x20)
        setup.fake.setWord(0, Slot.REQUEST_SIZE_OFFSET, 8)
        setup.fake.setWord(0, Slot.REQUEST_DIRECTION_OFFSET, 1)
        setup.fake.setWord(0, Slot.REQUEST_VALUE_OFFSET + 4, 0x55)
        yield* TestClock.adjust(10)
        assert.strictEqual(brief(seen!), "r1 port 10")
        assert.deepStrictEqual([setup.take(), setup.fake.answer(0)[1]], [0x44, 0x55])
      }))
  })

  describe("clients that go", () => {
    const held = (setup: Setup, options: { readonly onEnd?: () => void } = {}) =>
      setup.io.register({
        name: "holder",
        ranges: [IoRange.ports(0x100, 0x1ff)],
        handle: () => Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => options.onEnd?.())))
      })

    it.effect("what a client held is completed with all-ones and its fibers are over (law 9)", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        let ended = 0
        yield* Scope.provide(held(setup, { onEnd: () => ended++ }), scope)
        assert.isUndefined(setup.ask({ address: 0x100 }, 0))
        assert.isUndefined(setup.ask({ address: 0x100 }, 2))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(ended, 2, "before the close returned")
        assert.deepStrictEqual([0, 2].map((vcpu) => setup.take(vcpu)), [0xff, 0xff])
        assert.deepStrictEqual(setup.notified, [0, 2])
        assert.deepStrictEqual(tags(yield* setup.io.recentEvents), ["Abandoned", "Abandoned"])
        assert.strictEqual(setup.ask({ address: 0x100 }), 0xff)
        assert.deepStrictEqual(tags(yield* setup.io.recentEvents), ["Abandoned", "Abandoned", "Unhandled"])
      }))

    it.effect("a client that is gone can have no ranges", () =>
      Effect.gen(function*() {
        const setup = make()
        const client = yield* Effect.scoped(setup.io.register(constant("gone", 1, IoRange.ports(0x100, 0x10f))))
        const range = IoRange.ports(0x200, 0x20f)
        const reasons = yield* Effect.all([
          reasonOf(client.addRange(range)),
          reasonOf(client.removeRange(range)),
          reasonOf(client.moveRange(range, range))
        ])
        for (const reason of reasons) assert.deepStrictEqual(reason, { _tag: "Closed", client: "gone" })
        assert.strictEqual(setup.ask({ address: 0x200 }), 0xff)
      }))

    it.effect("other clients' requests stay theirs", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        yield* Scope.provide(held(setup), scope)
        yield* setup.io.register({
          name: "other",
          ranges: [IoRange.ports(0x200, 0x2ff)],
          handle: () => Effect.as(Effect.sleep(5), 0x42)
        })
        setup.ask({ address: 0x100 }, 0)
        setup.ask({ address: 0x200 }, 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(setup.fake.state(1), Processing)
        yield* TestClock.adjust(5)
        assert.strictEqual(setup.take(1), 0x42)
      }))

    it.effect("the default client too", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        yield* Scope.provide(setup.io.registerDefault({ name: "default", handle: () => Effect.never }), scope)
        assert.isUndefined(setup.ask({}))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(setup.take(), 0xff)
      }))

    it.effect("a handler that does not end when asked answers too late: its value is nobody's", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        const gate = yield* Deferred.make<void>()
        yield* Scope.provide(
          setup.io.register({
            name: "stubborn",
            ranges: [IoRange.ports(0x100, 0x1ff)],
            handle: () => Effect.uninterruptible(Effect.as(Deferred.await(gate), 0x42))
          }),
          scope
        )
        setup.ask({ address: 0x100 })
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        assert.strictEqual(setup.take(), 0xff, "the vCPU does not wait for it")
        setup.fake.submit(0, { address: 0x300 })
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(closing)
        assert.strictEqual(setup.take(), 0xff, "the next request gets an answer of its own")
        assert.deepStrictEqual(tags(yield* setup.io.recentEvents), ["Abandoned", "Unhandled"])
      }))

    it.effect("a handler that wakes whoever closes its client, in its own stack, is over too", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        const wake = yield* Deferred.make<void>()
        let ended = false
        yield* Scope.provide(
          setup.io.register({
            name: "wakes",
            ranges: [IoRange.ports(0x100, 0x1ff)],
            handle: () =>
              Effect.andThen(Deferred.succeed(wake, undefined), Effect.never).pipe(
                Effect.onInterrupt(() => Effect.sync(() => ended = true))
              )
          }),
          scope
        )
        yield* Effect.forkChild(Effect.andThen(Deferred.await(wake), Scope.close(scope, Exit.void)), {
          startImmediately: true
        })
        assert.strictEqual(setup.ask({ address: 0x100 }), 0xff)
        yield* turns(2)
        assert.isTrue(ended)
        assert.deepStrictEqual(tags(yield* setup.io.recentEvents), ["Abandoned"])
        assert.deepStrictEqual(setup.notified, [0])
        yield* setup.io.drain(0)
      }))

    for (const isLate of [false, true]) {
      it.effect(`a handler may close its own client ${isLate ? "after it waited" : "at once"}`, () =>
        Effect.gen(function*() {
          const setup = make()
          const scope = yield* Scope.make()
          let isClosed = false
          yield* Scope.provide(
            setup.io.register({
              name: "closes itself",
              ranges: [IoRange.ports(0x100, 0x1ff)],
              handle: () =>
                Effect.gen(function*() {
                  if (isLate) yield* Effect.sleep(1)
                  yield* Scope.close(scope, Exit.void)
                  isClosed = true
                  return 0x42
                })
            }),
            scope
          )
          let answer = setup.ask({ address: 0x100 })
          yield* TestClock.adjust(1)
          yield* turns(3)
          answer ??= setup.take()
          assert.isTrue(isClosed, "it does not wait for itself")
          assert.strictEqual(answer, 0xff, "a client that is gone answers nothing")
          assert.deepStrictEqual(yield* setup.io.counts, [])
          setup.ask({ address: 0x100 })
          assert.strictEqual((yield* setup.io.counts).at(-1)?.client, "(nobody)")
        }))
    }
  })

  describe("a page that lies", () => {
    it.effect("foreign states are told, not obeyed, and the slot is served again when it is PENDING", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "slow",
          ranges: [IoRange.ports(0, 0xff)],
          handle: () => Effect.as(Effect.sleep(5), 0x42)
        })
        setup.ask({ address: 1 })
        setup.fake.setState(0, Pending)
        setup.dispatcher.serve(0)
        assert.deepStrictEqual((yield* setup.io.counts)[0]?.requests, 1, "a held request is not claimed twice")
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(setup.notified, [], "the first claim did not complete")
        assert.deepStrictEqual(tags(yield* setup.io.recentEvents), ["ForeignStep", "ForeignStep"])
        assert.deepStrictEqual((yield* setup.io.counts)[0]?.requests, 2, "what is PENDING then is a request (law 4)")
        yield* TestClock.adjust(5)
        assert.strictEqual(setup.take(), 0x42)
        assert.deepStrictEqual(setup.notified, [0])
      }))

    it.effect("a notification that the hypervisor refuses is told, and made again at the next look", () =>
      Effect.gen(function*() {
        const fake = new FakePage()
        const results = [-22, -22, 0]
        let notified = 0
        const dispatcher = new Dispatcher(fake, 1, () => results[notified++] ?? 0, undefined)
        const refusals = Effect.map(
          dispatcher.service.recentEvents,
          (events) => events.filter(({ _tag }) => _tag === "NotifyRefused")
        )
        fake.submit(0, {})
        dispatcher.serve(0)
        assert.deepStrictEqual<unknown>(yield* refusals, [{ _tag: "NotifyRefused", vcpu: 0, result: -22 }])
        dispatcher.serve(undefined)
        assert.strictEqual((yield* refusals).length, 2)
        dispatcher.serve(undefined)
        assert.strictEqual(notified, 3)
        dispatcher.serve(undefined)
        assert.strictEqual(notified, 3, "the hypervisor heard, it is not told once more")
      }))

    it.effect("a notification that was refused is not made for the request after a reset", () =>
      Effect.gen(function*() {
        const fake = new FakePage()
        let notified = 0
        const dispatcher = new Dispatcher(fake, 1, () => notified++ === 0 ? -22 : 0, undefined)
        fake.submit(0, {})
        dispatcher.serve(0)
        yield* dispatcher.forgetAll
        fake.setState(0, Complete)
        dispatcher.serve(0)
        assert.strictEqual(notified, 1)
      }))
  })

  describe("drain and proceed", () => {
    const slow = (setup: Setup, name = "slow") =>
      setup.io.register({
        name,
        ranges: [IoRange.ports(0x100, 0x1ff)],
        handle: () => Effect.as(Effect.sleep(100), 0x42)
      })

    it.effect("drain waits for what is held, takes nothing new, and proceed takes what came meanwhile", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* slow(setup)
        yield* setup.io.register(constant("fast", 7, IoRange.ports(0, 0xff)))
        setup.ask({ address: 0x100 }, 0)
        const draining = yield* Effect.forkChild(setup.io.drain(1000), { startImmediately: true })
        assert.isUndefined(setup.ask({ address: 1 }, 1))
        assert.strictEqual(setup.fake.state(1), Pending)
        yield* TestClock.adjust(99)
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust(1)
        yield* Fiber.join(draining)
        assert.strictEqual(setup.take(0), 0x42)
        assert.isUndefined(setup.ask({ address: 1 }, 2), "still drained")
        yield* setup.io.proceed
        assert.deepStrictEqual([1, 2].map((vcpu) => setup.take(vcpu)), [7, 7])
      }))

    it.effect("it waits for the last that is held, whichever ends first", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "slow",
          ranges: [IoRange.ports(0x100, 0x1ff)],
          handle: (request) => Effect.sleep([30, 10, 20][request.vcpu]!)
        })
        for (const vcpu of [0, 1, 2]) setup.ask({ address: 0x100 }, vcpu)
        const draining = yield* Effect.forkChild(setup.io.drain(1000), { startImmediately: true })
        yield* TestClock.adjust(29)
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust(1)
        yield* Fiber.join(draining)
      }))

    it.effect("it waits for a handler that is only starting, which woke whoever drains", () =>
      Effect.gen(function*() {
        const setup = make()
        const wake = yield* Deferred.make<void>()
        const gate = yield* Deferred.make<void>()
        yield* setup.io.register({
          name: "wakes",
          ranges: [IoRange.ports(0x100, 0x1ff)],
          handle: () => Effect.as(Effect.andThen(Deferred.succeed(wake, undefined), Deferred.await(gate)), 0x42)
        })
        const draining = yield* Effect.forkChild(Effect.andThen(Deferred.await(wake), setup.io.drain(1000)), {
          startImmediately: true
        })
        setup.ask({ address: 0x100 })
        yield* turns(2)
        assert.isUndefined(draining.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(draining)
        assert.strictEqual(setup.take(), 0x42)
      }))

    it.effect("of two drains at once the one that gives up lets the other stay", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* slow(setup)
        setup.ask({ address: 0x100 }, 0)
        const patient = yield* Effect.forkChild(setup.io.drain(1000), { startImmediately: true })
        const hasty = yield* Effect.forkChild(Effect.exit(setup.io.drain(10)), { startImmediately: true })
        yield* TestClock.adjust(10)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(hasty)))
        assert.isUndefined(setup.ask({ address: 0x200 }, 1), "requests are still held back")
        yield* TestClock.adjust(90)
        yield* Fiber.join(patient)
        assert.strictEqual(setup.fake.state(1), Pending)
        yield* setup.io.proceed
        assert.strictEqual(setup.take(1), 0xff)
      }))

    it.effect("with nothing held it is done at once", () =>
      Effect.gen(function*() {
        yield* make().io.drain(0)
      }))

    it.effect("past the deadline it names the clients and takes requests again", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({ name: "stuck", ranges: [IoRange.ports(0x300, 0x3ff)], handle: () => Effect.never })
        yield* setup.io.register(constant("fast", 7, IoRange.ports(0, 0xff)))
        setup.ask({ address: 0x300 }, 0)
        const draining = yield* Effect.forkChild(Effect.exit(setup.io.drain()), { startImmediately: true })
        setup.ask({ address: 1 }, 1)
        yield* TestClock.adjust(999)
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust(1)
        const exit = yield* Fiber.join(draining)
        assert.strictEqual(
          Exit.isFailure(exit) ? (Cause.squash(exit.cause) as Error).message : "",
          "requests were still held after 1000 ms by stuck; make these handlers answer, or close their clients"
        )
        assert.strictEqual(setup.take(1), 7)
      }))

    it.effect("interrupted, it takes requests again", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* slow(setup)
        yield* setup.io.register(constant("fast", 7, IoRange.ports(0, 0xff)))
        setup.ask({ address: 0x100 }, 0)
        const draining = yield* Effect.forkChild(setup.io.drain(1000), { startImmediately: true })
        setup.ask({ address: 1 }, 1)
        yield* Fiber.interrupt(draining)
        assert.strictEqual(setup.take(1), 7)
      }))

    it.effect("a client that goes while it is waited for ends the wait", () =>
      Effect.gen(function*() {
        const setup = make()
        const scope = yield* Scope.make()
        yield* Scope.provide(slow(setup), scope)
        setup.ask({ address: 0x100 }, 0)
        const draining = yield* Effect.forkChild(setup.io.drain(1000), { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(draining)
      }))
  })

  describe("what observers hear", () => {
    it.effect("events as a stream, from now on", () =>
      Effect.gen(function*() {
        const setup = make()
        setup.ask({ address: 0x99 })
        const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(setup.io.events, 2)), {
          startImmediately: true
        })
        setup.ask({ address: 0x10 })
        setup.ask({ size: 3 })
        assert.deepStrictEqual(tags(yield* Fiber.join(taking)), ["Unhandled", "Malformed"])
      }))

    it.effect("the last 256 events are kept", () =>
      Effect.gen(function*() {
        const setup = make()
        for (let i = 0; i < 300; i++) setup.ask({ address: i })
        const events = yield* setup.io.recentEvents
        assert.strictEqual(events.length, 256)
        const ports = events.map((event) =>
          event._tag === "Unhandled" && "port" in event.request ? event.request.port : -1
        )
        assert.deepStrictEqual<ReadonlyArray<number>>(ports, Array.from({ length: 256 }, (_, i) => 44 + i))
      }))

    it.effect("transitions as a stream: each legal, in order, per slot", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "slow",
          ranges: [IoRange.ports(0, 0xff)],
          handle: () => Effect.as(Effect.sleep(1), 1)
        })
        const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(setup.io.transitions, 5)), {
          startImmediately: true
        })
        setup.ask({ address: 1 }, 0)
        setup.ask({ address: 0x100 }, 1)
        yield* TestClock.adjust(1)
        setup.ask({ address: 0xcf8, size: 4 }, 2)
        setup.ask({ size: 7 }, 3)
        const steps = yield* Fiber.join(taking)
        assert.deepStrictEqual(steps.map(({ command, epoch, vcpu }) => `${vcpu} ${command} ${epoch}`), [
          "0 Claim 1",
          "1 Answer 1",
          "0 Complete 1",
          "2 Answer 1",
          "3 Answer 1"
        ])
        assert.isTrue(steps.every(Schema.is(RequestTransition)))
      }))

    it.effect("an observer that throws hears no more, and the guest hears nothing of it", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register(constant("client", 7, IoRange.ports(0, 0xff)))
        let heard = 0
        yield* setup.io.observe({
          onRequest: () => {
            throw new Error("bad observer")
          }
        })
        yield* setup.io.observe({ onComplete: () => heard++ })
        assert.deepStrictEqual([setup.ask({ address: 1 }), setup.ask({ address: 1 })], [7, 7])
        assert.strictEqual(heard, 2)
        const events = yield* setup.io.recentEvents
        assert.deepStrictEqual<unknown>(events, [{ _tag: "ObserverFailed", problem: "Error: bad observer" }])
      }))

    it.effect("observers hear who was asked what, and what the guest then reads", () =>
      Effect.gen(function*() {
        const setup = make()
        yield* setup.io.register({
          name: "wide",
          ranges: [IoRange.ports(0, 0xff), IoRange.mmio(0, 0xff)],
          handle: (request) => Effect.succeed("address" in request ? 0x1_2345 : 0x1234_5678_9abc)
        })
        const log: Array<string> = []
        const scope = yield* Scope.make()
        yield* Scope.provide(
          setup.io.observe({
            onRequest: (client, request) => log.push(`${client}: ${brief(request)}`),
            onComplete: (client, _, value) =>
              log.push(`${client} = ${value === undefined ? "nothing" : `${typeof value} ${value.toString(16)}`}`)
          }),
          scope
        )
        setup.ask({ address: 1, size: 2 })
        setup.ask({ address: 2, size: 1, direction: Write, value: 5 })
        setup.ask({ address: 4, size: 2, type: Mmio })
        setup.ask({ address: 0x300, size: 2 })
        setup.ask({ address: 0xf000, size: 8, type: Mmio })
        setup.ask({ address: 0xcf8, size: 4 })
        yield* Scope.close(scope, Exit.void)
        setup.ask({ address: 1 })
        assert.deepStrictEqual(log, [
          "wide: r2 port 1",
          "wide = number 9abc",
          "wide: w1 port 2 5",
          "wide = nothing",
          "wide: r2 mmio 4",
          "wide = bigint 2345",
          "(nobody): r2 port 300",
          "(nobody) = number ffff",
          "(nobody): r8 mmio f000",
          "(nobody) = bigint ffffffffffffffff",
          "(PCI config address): r4 port cf8",
          "(PCI config address) = number 0"
        ])
      }))
  })
})
