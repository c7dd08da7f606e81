import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as IoRange from "../../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../../src/domain/IoRequest.ts"
import * as Generator from "../../../src/testing/Generator.ts"
import * as World from "../../../src/testing/laws/World.ts"
import * as TestMachine from "../../../src/testing/TestMachine.ts"

const read = (port: number, vcpu = 0): IoRequest => ({ _tag: "PortRead", vcpu, port, size: 1 }) as never
const load = (address: number, size: 1 | 2 | 4): IoRequest => ({ _tag: "MmioRead", vcpu: 0, address, size }) as never

const worlds = Generator.sample(World.generator(TestMachine.profile, World.failing), { count: 300, seed: 1 })

describe("worlds", () => {
  it.effect("are what their schema says", () =>
    Effect.gen(function*() {
      const isWorld = Schema.is(World.World)
      for (const world of yield* worlds) assert.isTrue(isWorld(world))
    }))

  it.effect("never give an address to two clients, and give ranges to each", () =>
    Effect.gen(function*() {
      for (const { clients } of yield* worlds) {
        const ranges = clients.flatMap((client) => client.ranges)
        for (const [index, range] of ranges.entries()) {
          assert.isFalse(ranges.slice(index + 1).some((other) => IoRange.overlaps(range, other)))
        }
        assert.isTrue(clients.every((client) => client.ranges.length > 0))
      }
    }))

  it.effect("have ranges that touch, gaps, and all spaces", () =>
    Effect.gen(function*() {
      const ranges = (yield* worlds).flatMap(({ clients }) => clients.flatMap((client) => client.ranges))
      const spaces = new Set(ranges.map(({ _tag }) => _tag))
      assert.deepStrictEqual([...spaces].toSorted(), ["Mmio", "PciAny", "PciFunction", "Port"])
      const touching = (yield* worlds).filter(({ clients }) => {
        const ports = clients.flatMap((client) => client.ranges).filter((range) => range._tag === "Port")
        return ports.some(({ end }) => ports.some(({ start }) => start === end + 1))
      })
      assert.isAbove(touching.length, 10)
    }))

  it.effect("lie below the end of the hypervisor's addresses", () =>
    Effect.gen(function*() {
      const narrow = { ...TestMachine.profile, addressBits: 24 }
      for (const { clients } of yield* Generator.sample(World.generator(narrow), { count: 100, seed: 1 })) {
        for (const range of clients.flatMap((client) => client.ranges)) {
          if (range._tag === "Mmio") assert.isBelow(range.end, 2 ** 24)
        }
      }
    }))

  it.effect("are shown a client a line", () =>
    Effect.sync(() => {
      const world: World.World = {
        seed: 7,
        clients: [
          { name: "alpha", ranges: [IoRange.ports(0x300, 0x303), IoRange.pciAny], answers: World.atOnce },
          { name: "beta", ranges: [IoRange.mmio(0, 15)], answers: { _tag: "AfterNanos", nanos: 20 } }
        ],
        default: { _tag: "Fails" }
      }
      assert.deepStrictEqual(World.format(world).split("\n"), [
        "clients (seed 7):",
        "  alpha answers at once: ports 0x300-0x303, PCI (any function)",
        "  beta answers after 20 ns of guest time: MMIO 0x0-0xf",
        "  default client fails"
      ])
    }))
})

describe("what a client says", () => {
  it("is the same for the same seed, and another for each request of a vCPU", () => {
    const [one, same, other] = [World.makeValues(1), World.makeValues(1), World.makeValues(2)]
    const said = Array.from({ length: 8 }, () => one("alpha", read(0x300)))
    assert.deepStrictEqual(Array.from({ length: 8 }, () => same("alpha", read(0x300))), said)
    assert.strictEqual(new Set(said).size, 8)
    assert.notDeepEqual(Array.from({ length: 8 }, () => other("alpha", read(0x300))), said)
  })

  it("does not depend on other vCPUs or other clients", () => {
    const [alone, among] = [World.makeValues(1), World.makeValues(1)]
    const expected = [alone("alpha", read(0x300)), alone("alpha", read(0x300))]
    const first = among("alpha", read(0x300))
    among("alpha", read(0x300, 1))
    among("beta", read(0x300))
    assert.deepStrictEqual([first, among("alpha", read(0x300))], expected)
  })

  it("is in memory the same in one access as in several", () => {
    const [whole, split] = [World.makeValues(1), World.makeValues(1)]
    for (let round = 0; round < 3; round++) {
      const word = BigInt(whole("alpha", load(0x1000, 4)))
      const bytes = [0, 1, 2, 3].map((at) => BigInt(split("alpha", load(0x1000 + at, 1))) & 0xffn)
      assert.strictEqual(bytes.reduce((sum, byte, at) => sum | byte << BigInt(8 * at), 0n), word & 0xffff_ffffn)
    }
  })
})

describe("a world in a VM", () => {
  const answerTo = (answers: World.Answers, misbehave?: World.Misbehave) =>
    Effect.scoped(Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      const log = yield* machine.attach(
        World.install(machine.vm, {
          seed: 1,
          clients: [{ name: "alpha", ranges: [IoRange.ports(0x300, 0x303)], answers }]
        }, misbehave)
      )
      const reading = yield* Effect.forkChild(machine.portRead(0x300, 1), { startImmediately: true })
      for (let turn = 0; turn < 5; turn++) yield* Effect.yieldNow
      const early = reading.pollUnsafe()
      yield* machine.advance("1 micros")
      for (let turn = 0; turn < 5; turn++) yield* Effect.yieldNow
      const late = reading.pollUnsafe()
      const value = (exit: typeof early) => exit?._tag === "Success" ? exit.value : undefined
      return { early: value(early), late: value(late), log }
    }))

  const said = Number(World.makeValues(1)("alpha", read(0x300))) & 0xff

  it.effect("answers as it says, when it says", () =>
    Effect.gen(function*() {
      const outcomes: ReadonlyArray<readonly [World.Answers, IoValue, IoValue]> = [
        [{ _tag: "AtOnce" }, said, said],
        [{ _tag: "AfterTurns", turns: 2 }, said, said],
        [{ _tag: "AfterNanos", nanos: 1000 }, undefined, said],
        [{ _tag: "Nothing" }, 0xff, 0xff],
        [{ _tag: "Fails" }, 0xff, 0xff],
        [{ _tag: "Dies" }, 0xff, 0xff],
        [{ _tag: "Throws" }, 0xff, 0xff],
        [{ _tag: "TooLate", nanos: 1000 }, undefined, 0xff],
        [{ _tag: "Never" }, undefined, undefined]
      ]
      for (const [answers, early, late] of outcomes) {
        const seen = yield* answerTo(answers)
        assert.deepStrictEqual({ early: seen.early, late: seen.late }, { early, late } as never, answers._tag)
        assert.strictEqual(World.hasValue(answers), late === said)
        assert.deepStrictEqual(seen.log, [{ client: "alpha", request: read(0x300) }])
      }
    }))

  it.effect("can misbehave in place of a client", () =>
    Effect.gen(function*() {
      const seen = yield* answerTo({ _tag: "AtOnce" }, () => Effect.succeed(0x55))
      assert.strictEqual(seen.early, 0x55)
      assert.strictEqual(seen.log.length, 1)
    }))
})
