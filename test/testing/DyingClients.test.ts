/** How clients die, and that a guest, the other clients and the VM outlive them. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Schema, Scope } from "effect"
import { Port, VcpuId } from "../../src/domain/Address.ts"
import { ports } from "../../src/domain/IoRange.ts"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import { AroundHandlers, type RequestHandler } from "../../src/services/IoDispatcher.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import * as DyingClients from "../../src/testing/DyingClients.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"
import { Asked, device, guests, leftovers, machinesOver, nothing, runGuests } from "../support/adversaries.ts"
import { turns } from "../support/machines.ts"

const over = (options: DyingClients.Options) => machinesOver(DyingClients.layer(options))

const dying = (options: DyingClients.Options) => Effect.provide(DyingClients.layer(options), { local: true })

const ALL_ONES = 0xff
const isDeath = Schema.is(DyingClients.ClientDeath)

/** Two clients that take some steps and a turn to answer; `log` tells how far they came. */
const twoClients = Effect.gen(function*() {
  const guest = yield* TestMachine.make()
  const log: Array<string> = []
  const client = (name: string, port: number, value: number) =>
    guest.vm.io.register({
      name,
      ranges: [ports(port, port + 7)],
      handle: (): Effect.Effect<IoValue> =>
        Effect.gen(function*() {
          log.push(`${name} begins`)
          yield* Effect.yieldNow
          log.push(`${name} answers`)
          return value
        }).pipe(Effect.ensuring(Effect.sync(() => log.push(`${name} ends`))))
    })
  yield* client("first", 0x100, 7)
  yield* client("second", 0x200, 9)
  return {
    guest,
    log,
    first: guest.portRead(0x100, 1),
    second: guest.portRead(0x200, 1),
    deaths: yield* DyingClients.DyingClients
  }
})

describe("a client", () => {
  const ends: ReadonlyArray<DyingClients.Death> = [
    { _tag: "Fails" },
    { _tag: "Dies" },
    { _tag: "Throws" },
    { _tag: "AnswersRubbish" },
    { _tag: "Interrupted", atStep: 1 }
  ]
  for (const death of ends) {
    it.effect(`that ${death._tag} answers that request with all-ones, and the next ones as ever`, () =>
      Effect.gen(function*() {
        const { deaths, first, guest, log, second } = yield* twoClients
        assert.strictEqual(yield* first, 7)
        log.length = 0
        assert.strictEqual(yield* first, ALL_ONES)
        assert.notInclude(log, "first begins")
        assert.strictEqual(yield* first, 7)
        assert.strictEqual(yield* second, 9)
        assert.deepStrictEqual(yield* deaths.faults, [
          {
            _tag: "ClientDeath",
            client: "first",
            nth: 2,
            request: { _tag: "PortRead", vcpu: VcpuId.make(0), port: Port.make(0x100), size: 1 },
            death
          }
        ])
        const events = (yield* guest.vm.io.recentEvents).filter(({ _tag }) => _tag === "HandlerFailed")
        assert.lengthOf(events, 1)
      }).pipe(dying({ plan: [{ nth: 2, death }] })))
  }

  it.effect("is interrupted at any step, and what it must do at its end it does", () =>
    Effect.gen(function*() {
      const reached = new Set<string>()
      for (let atStep = 1; atStep <= 40; atStep++) {
        yield* Effect.gen(function*() {
          const { deaths, first, log } = yield* twoClients
          const value = yield* first
          const count = yield* deaths.count
          // Interrupted it never gives its value, and what it began it ends.
          if (count === 0) assert.strictEqual(value, 7)
          else assert.strictEqual(value, ALL_ONES)
          if (log.length > 0) assert.strictEqual(log.at(-1), "first ends")
          reached.add(`${count} ${log.join()}`)
          assert.strictEqual(yield* first, 7)
        }).pipe(dying({ plan: [{ nth: 1, death: { _tag: "Interrupted", atStep } }] }), Effect.scoped)
      }
      assert.sameMembers([...reached], [
        "1 first ends",
        "1 first begins,first ends",
        "1 first begins,first answers,first ends",
        "0 first begins,first answers,first ends"
      ])
    }))

  it.effect("is interrupted at a step of its handler's own fiber, not of those that it forks", () =>
    Effect.gen(function*() {
      const guest = yield* TestMachine.make()
      let childEnded = false
      const child = Effect.andThen(
        Effect.forEach(Array.from({ length: 30 }), () => Effect.yieldNow, { discard: true }),
        Effect.sync(() => {
          childEnded = true
        })
      )
      yield* guest.vm.io.register({
        name: "first",
        ranges: [ports(0x100, 0x107)],
        handle: () => Effect.as(Effect.flatMap(Effect.forkChild(child), Fiber.join), 7)
      })
      assert.strictEqual(yield* guest.portRead(0x100, 1), 7)
      assert.isTrue(childEnded)
    }).pipe(dying({ plan: [{ nth: 1, death: { _tag: "Interrupted", atStep: 40 } }] })))

  it.effect("that never answers keeps its vCPU waiting until its scope ends", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const guest = yield* TestMachine.make()
      yield* guest.vm.io.register({
        name: "first",
        ranges: [ports(0x100, 0x107)],
        handle: () => Effect.succeed(7)
      }).pipe(Scope.provide(scope))
      const read = yield* Effect.forkChild(guest.portRead(0x100, 1), { startImmediately: true })
      yield* turns(20)
      assert.isUndefined(read.pollUnsafe())
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* Fiber.join(read), ALL_ONES)
    }).pipe(dying({ plan: [{ nth: 1, death: { _tag: "NeverAnswers" } }] })))

  it.effect("is named by its plan: its own requests count, not those of others", () =>
    Effect.gen(function*() {
      const { deaths, first, second } = yield* twoClients
      assert.deepStrictEqual(
        yield* Effect.all([first, second, first, second, second]),
        [7, 9, 7, ALL_ONES, 9]
      )
      assert.strictEqual(
        yield* deaths.report,
        "request 2 of second, read 1 byte from port 0x200 (vCPU 0): Dies"
      )
    }).pipe(dying({ plan: [{ client: "second", nth: 2, death: { _tag: "Dies" } }] })))

  it.effect("is left alone after a stop, and dies anew after a restart", () =>
    Effect.gen(function*() {
      const { deaths, first } = yield* twoClients
      assert.strictEqual(yield* first, ALL_ONES)
      assert.strictEqual(yield* first, 7)
      yield* deaths.restart
      assert.strictEqual(yield* deaths.count, 0)
      assert.strictEqual(yield* first, ALL_ONES)
      yield* deaths.restart
      yield* deaths.stop
      assert.strictEqual(yield* first, 7)
    }).pipe(dying({ plan: [{ nth: 1, death: { _tag: "Fails" } }] })))
})

describe("drawn deaths", () => {
  const drawn = (options: DyingClients.Options) =>
    Effect.gen(function*() {
      const result = yield* runGuests
      const deaths = yield* DyingClients.DyingClients
      return { result, faults: yield* deaths.faults, left: yield* leftovers }
    }).pipe(Effect.provide(over(options), { local: true }))

  it.effect("end no guest: it comes to its end with all-ones here and there, and nothing is left", () =>
    Effect.gen(function*() {
      const seen = new Set<string>()
      for (let seed = 1; seed <= 30; seed++) {
        const { faults, left, result } = yield* drawn({ seed, rate: 0.4 })
        assert.strictEqual(result.end, "Halted", `seed ${seed}`)
        assert.deepStrictEqual(left, nothing, `seed ${seed}`)
        for (const fault of faults) {
          assert.isTrue(isDeath(fault), DyingClients.format(fault))
          seen.add(fault.death._tag)
        }
      }
      assert.sameMembers([...seen], ["Fails", "Dies", "Throws", "AnswersRubbish", "Interrupted"])
    }))

  it.effect("are the same for the same seed, and concern the clients that are named", () =>
    Effect.gen(function*() {
      const first = yield* drawn({ seed: 3, rate: 0.4 })
      assert.deepStrictEqual((yield* drawn({ seed: 3, rate: 0.4 })).faults, first.faults)
      assert.notDeepEqual((yield* drawn({ seed: 4, rate: 0.4 })).faults, first.faults)
      assert.isAbove(first.faults.length, 2)
      assert.deepStrictEqual((yield* drawn({ seed: 3, rate: 1, clients: ["nobody"] })).faults, [])
    }))

  it.effect("of clients that never answer stop neither another VM nor the end of their own", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine
      const scope = yield* Scope.make()
      const asked = new Asked()
      const running = yield* Effect.gen(function*() {
        const vm = yield* machines.create({ memoryBytes: guests.plan.memoryBytes, vcpus: 2 })
        yield* vm.attach(device(asked))
        yield* GuestRun.load(vm, guests)
        return yield* vm.start
      }).pipe(Scope.provide(scope))
      yield* turns(20)
      assert.lengthOf(asked.requests, 0)
      const deaths = yield* DyingClients.DyingClients
      assert.strictEqual(yield* deaths.count, 2)
      yield* deaths.stop
      assert.strictEqual((yield* runGuests).end, "Halted")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* running.ended)._tag, "Stopped")
      assert.deepStrictEqual(yield* leftovers, nothing)
    }).pipe(Effect.provide(over({ seed: 1, rate: 1, deaths: { NeverAnswers: 1 } }), { local: true })))
})

describe("plans", () => {
  it.effect("that are generated are plans, and all their deaths end", () =>
    Effect.gen(function*() {
      const isPlan = Schema.is(DyingClients.Plan)
      for (const plan of yield* Generator.sample(DyingClients.plans(20), { count: 100, seed: 1 })) {
        assert.isTrue(isPlan(plan))
        assert.isTrue(plan.every(({ death, nth }) => death._tag !== "NeverAnswers" && nth <= 20))
      }
    }))

  it.effect("and options that are none are refused as typed errors", () =>
    Effect.gen(function*() {
      for (
        const options of [
          { plan: [{ nth: 0, death: { _tag: "Fails" } }] },
          { plan: [{ nth: 1, death: { _tag: "Interrupted", atStep: 0 } }] },
          { plan: [{ nth: 1, death: { _tag: "Sleeps" } }] },
          { plan: [], seed: 1 },
          { seed: 1, rate: 2 },
          { seed: 1, deaths: { Sleeps: 1 } },
          {}
        ]
      ) {
        const error = yield* Effect.flip(
          Effect.provide(Effect.void, DyingClients.layer(options as DyingClients.Options))
        )
        assert.instanceOf(error, DyingClients.AdversaryError, JSON.stringify(options))
      }
    }))
})

describe("AroundHandlers", () => {
  it.effect("is asked once per registration, and what stands there already stays, inside", () =>
    Effect.gen(function*() {
      const order: Array<string> = []
      const mark = (name: string) => (client: string, handle: RequestHandler): RequestHandler => {
        order.push(`${name} around ${client}`)
        return (request) => {
          order.push(name)
          return handle(request)
        }
      }
      const context = yield* Layer.build(DyingClients.layer({ plan: [] })).pipe(
        Effect.provideService(AroundHandlers, mark("inner"))
      )
      yield* Effect.gen(function*() {
        const guest = yield* TestMachine.make()
        yield* guest.vm.io.register({ name: "client", ranges: [ports(0, 7)], handle: () => Effect.succeed(5) })
        assert.deepStrictEqual(order, ["inner around client"])
        assert.strictEqual(yield* guest.portRead(0, 1), 5)
        assert.strictEqual(yield* guest.portRead(0, 1), 5)
        assert.deepStrictEqual(order, ["inner around client", "inner", "inner"])
      }).pipe(Effect.provide(context))
    }))

  it.effect("leaves a handler as it is by default", () =>
    Effect.sync(() => {
      const handle: RequestHandler = () => Effect.succeed(1)
      assert.strictEqual(Context.get(Context.empty(), AroundHandlers)("client", handle), handle)
    }))
})
