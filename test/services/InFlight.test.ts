/** Pause, resume, reset and destroy with requests in flight: what a program claimed by hand, and who holds requests back. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { RunningVm, Vm } from "../../src/services/Vm.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, recorder, runToEnd, TEST_PORTS, turns, until } from "../support/machines.ts"

const DATA = 0x5000
const HALTED = { _tag: "Halted" } as const
const twoReads = g.code(g.inp(0x100), g.store(DATA), g.inp(0x101), g.store(DATA + 4), g.stop)

/** A guest whose first request waits in its slot, because requests are drained. */
const withPending = Effect.gen(function*() {
  const vm = yield* boot(twoReads)
  const seen = yield* recorder(vm, { answer: () => 0x42 })
  yield* vm.io.drain()
  const running = yield* vm.start
  yield* turns()
  return { vm, seen, running }
})

const pendingOf = (vm: Vm) =>
  Effect.flatMap(vm.requests.pending(0), (slot) => slot === undefined ? Effect.die("no request") : Effect.succeed(slot))

const states = (vm: Vm) =>
  Effect.map(
    vm.requests.inspect,
    ({ slots }) =>
      slots.map(({ held, state }) => `${typeof state === "string" ? state : "unknown"}${held ? " held" : ""}`)
  )

const pauseProblem = (running: RunningVm) => Effect.map(Effect.flip(running.pauseWithin(10)), ({ message }) => message)

describe("a request that is claimed by hand", () => {
  it.effect("is waited for by a drain, which names it when it takes too long", () =>
    Effect.gen(function*() {
      const { running, vm } = yield* withPending
      const claim = yield* (yield* pendingOf(vm)).claim
      const failing = yield* Effect.forkChild(Effect.flip(vm.io.drain(10)), { startImmediately: true })
      yield* TestClock.adjust(10)
      assert.deepStrictEqual((yield* Fiber.join(failing)).reason, {
        _tag: "DrainTimeout",
        clients: ["(claimed by hand)"],
        deadlineMs: 10
      })
      const draining = yield* Effect.forkChild(vm.io.drain("1 hour"), { startImmediately: true })
      yield* turns(3)
      assert.isUndefined(draining.pollUnsafe())
      yield* claim.complete(7)
      yield* Fiber.join(draining)
      yield* vm.io.proceed
      assert.deepStrictEqual(yield* running.ended, HALTED)
      assert.strictEqual((yield* vm.memory.read32(DATA)) & 0xff, 7)
    }).pipe(onSimulated()))

  it.effect("is waited for by a pause: what it is answered is written when the pause returns (law 10)", () =>
    Effect.gen(function*() {
      const { running, vm } = yield* withPending
      const claim = yield* (yield* pendingOf(vm)).claim
      const failing = yield* Effect.forkChild(pauseProblem(running), { startImmediately: true })
      yield* TestClock.adjust(10)
      assert.include(yield* Fiber.join(failing), "(claimed by hand)")
      const pausing = yield* Effect.forkChild(running.pauseWithin("1 hour"), { startImmediately: true })
      yield* turns(3)
      assert.isUndefined(pausing.pollUnsafe())
      yield* claim.complete(7)
      const paused = yield* Fiber.join(pausing)
      assert.notInclude(yield* states(vm), "Processing held")
      const again = yield* paused.resume
      assert.deepStrictEqual(yield* again.ended, HALTED)
      assert.strictEqual((yield* vm.memory.read32(DATA)) & 0xff, 7)
    }).pipe(onSimulated()))

  it.effect("is as old as the VM's time says, which stands still while the VM is paused", () =>
    Effect.gen(function*() {
      const { running, vm } = yield* withPending
      yield* running.pause
      yield* (yield* pendingOf(vm)).claim
      yield* TestClock.adjust("1 hour")
      const [slot] = (yield* vm.requests.inspect).slots
      assert.deepStrictEqual([slot?.client, slot?.ageMs], ["(claimed by hand)", 0])
    }).pipe(onSimulated()))

  it.effect("may be claimed and answered while the VM is paused; the vCPU finds the answer when it is resumed", () =>
    Effect.gen(function*() {
      const { running, vm } = yield* withPending
      const paused = yield* running.pause
      yield* (yield* (yield* pendingOf(vm)).claim).complete(9)
      assert.deepStrictEqual(yield* states(vm), ["Complete"])
      const again = yield* paused.resume
      assert.deepStrictEqual(yield* again.ended, HALTED)
      assert.strictEqual((yield* vm.memory.read32(DATA)) & 0xff, 9)
    }).pipe(onSimulated()))

  it.effect("gets all-ones when its VM is closed, and reaches nothing of whoever comes after", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { vm } = yield* Scope.provide(withPending, scope)
      const pending = yield* pendingOf(vm)
      const claim = yield* pending.claim
      yield* Scope.close(scope, Exit.void)
      const abandoned = (yield* vm.io.recentEvents).filter(({ _tag }) => _tag === "Abandoned")
      assert.deepStrictEqual(abandoned, [{ _tag: "Abandoned", client: "(claimed by hand)", request: pending.request }])
      const next = yield* withPending
      assert.strictEqual(next.vm.id, vm.id)
      assert.strictEqual((yield* Effect.flip(claim.complete(1))).reason._tag, "Stale")
      assert.strictEqual((yield* Effect.flip(pending.answer(1))).reason._tag, "Stale")
      assert.isUndefined(yield* vm.requests.pending(0))
      yield* vm.io.proceed
      assert.deepStrictEqual(yield* states(vm), ["Free"])
      assert.deepStrictEqual(yield* states(next.vm), ["Pending"])
    }).pipe(onSimulated()))

  it.effect("that nobody claimed before its VM was closed can be answered by nobody", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { seen, vm } = yield* Scope.provide(withPending, scope)
      const pending = yield* pendingOf(vm)
      yield* Scope.close(scope, Exit.void)
      yield* vm.io.proceed
      assert.deepStrictEqual(seen, [])
      assert.strictEqual((yield* Effect.flip(pending.claim)).reason._tag, "Stale")
      assert.strictEqual((yield* Effect.flip(pending.answer(1))).reason._tag, "Stale")
      assert.isUndefined(yield* vm.requests.pending(0))
    }).pipe(onSimulated()))
})

describe("proceed", () => {
  it.effect("takes nothing of a paused VM, whose requests wait until it is resumed (law 10)", () =>
    Effect.gen(function*() {
      const { running, seen, vm } = yield* withPending
      const paused = yield* running.pause
      yield* vm.io.proceed
      yield* vm.io.drain()
      yield* vm.io.proceed
      yield* turns()
      assert.deepStrictEqual([seen.length, yield* states(vm)], [0, ["Pending"]])
      const again = yield* paused.resume
      assert.deepStrictEqual(yield* again.ended, HALTED)
      assert.strictEqual(seen.length, 2)
    }).pipe(onSimulated()))

  it.effect("does not end a pause that is still waiting", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.stop), g.code(g.forever(g.inp(0x180))))
      const gate = yield* Deferred.make<IoValue>()
      let asked = 0
      yield* vm.io.register({
        name: "held",
        ranges: [TEST_PORTS],
        handle: (request) => {
          asked++
          return request.vcpu === 0 ? Deferred.await(gate) : Effect.as(Effect.yieldNow, 1)
        }
      })
      const running = yield* vm.start
      yield* turns(5)
      const pausing = yield* Effect.forkChild(running.pauseWithin("1 hour"), { startImmediately: true })
      yield* turns(5)
      const before = asked
      assert.deepStrictEqual(yield* states(vm), ["Processing held", "Pending"])
      yield* vm.io.proceed
      yield* turns(5)
      assert.strictEqual(asked, before)
      yield* Deferred.succeed(gate, 1)
      yield* Fiber.join(pausing)
    }).pipe(onSimulated()))
})

describe("a drain", () => {
  it.effect("outlives a pause that did not come to be, and ends with a resume or a reset", () =>
    Effect.gen(function*() {
      const { running, seen, vm } = yield* withPending
      const claim = yield* (yield* pendingOf(vm)).claim
      const failing = yield* Effect.forkChild(pauseProblem(running), { startImmediately: true })
      yield* TestClock.adjust(10)
      yield* Fiber.join(failing)
      yield* claim.complete(7)
      yield* turns()
      assert.deepStrictEqual([seen.length, yield* states(vm)], [0, ["Pending"]], "the second read is held back")
      const paused = yield* running.pause
      yield* turns()
      const again = yield* paused.resume
      assert.deepStrictEqual(yield* again.ended, HALTED)
      assert.strictEqual(seen.length, 1)
      yield* vm.io.drain()
      const created = yield* (yield* again.pause).reset
      assert.deepStrictEqual(yield* runToEnd(created), HALTED)
      assert.strictEqual(seen.length, 3)
    }).pipe(onSimulated()))
})

describe("guest time", () => {
  it.effect("goes on while a pause waits, stands still while the VM is paused, and goes on from there", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.loop(1000, g.nop), g.stop), g.code(g.forever(g.nop)))
      const now = Effect.sync(() => vm.machine.time.clock.monotonicTimeNanosUnsafe())
      let beats = 0
      yield* vm.attach(vm.machine.fork(Effect.forever(Effect.andThen(Effect.sleep(1), Effect.sync(() => beats++)))))
      const asked = yield* Deferred.make<void>()
      yield* vm.io.register({
        name: "slow",
        ranges: [TEST_PORTS],
        handle: () => Effect.andThen(Deferred.succeed(asked, undefined), Effect.as(Effect.sleep(20), 1))
      })
      const running = yield* vm.start
      yield* Deferred.await(asked)
      const before = yield* now
      const paused = yield* running.pause
      const during = yield* now
      assert.isAtLeast(Number(during - before), 20e6, "the handler's sleep passed")
      const beatsWhenPaused = beats
      yield* turns(50)
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual([yield* now, beats], [during, beatsWhenPaused])
      yield* paused.resume
      yield* until(() => beats > beatsWhenPaused + 2)
      assert.isBelow(Number((yield* now) - during), 1e9)
    }).pipe(onSimulated()))
})

describe("a VM whose client is stuck", () => {
  it.effect("delays no other VM: it runs, is paused, reset and closed", () =>
    Effect.gen(function*() {
      const stuck = yield* boot(g.code(g.inp(0x100), g.stop))
      yield* stuck.io.register({ name: "stuck", ranges: [TEST_PORTS], handle: () => Effect.never })
      const stuckRunning = yield* stuck.start
      yield* turns()
      const pausing = yield* Effect.forkChild(stuckRunning.pauseWithin("1 day"), { startImmediately: true })
      yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* boot(g.code(g.loop(10, g.inp(0x100)), g.stop))
        const seen = yield* recorder(vm)
        const running = yield* vm.start
        assert.deepStrictEqual(yield* running.ended, HALTED)
        assert.deepStrictEqual(yield* runToEnd(yield* (yield* running.pause).reset), HALTED)
        assert.strictEqual(seen.length, 20)
      }))
      assert.isUndefined(pausing.pollUnsafe())
    }).pipe(onSimulated()))
})

describe("a pause that the hypervisor refuses", () => {
  it.effect("takes requests again, those that came meanwhile first", () => {
    let isRefusing = false
    const refuses = Layer.effect(
      HypercallGate,
      Effect.map(HypercallGate, (gate) =>
        HypercallGate.of({
          ...gate,
          call: (id, param1, param2) =>
            Effect.suspend(() =>
              isRefusing && id === HypercallId.PauseVm ? Effect.succeed(-22) : gate.call(id, param1, param2)
            )
        }))
    )
    return Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.inp(0x101), g.stop))
      const gate = yield* Deferred.make<IoValue>()
      let asked = 0
      yield* vm.io.register({
        name: "held",
        ranges: [TEST_PORTS],
        handle: () => asked++ === 0 ? Deferred.await(gate) : Effect.succeed(1)
      })
      const running = yield* vm.start
      yield* turns(5)
      isRefusing = true
      const pausing = yield* Effect.forkChild(Effect.flip(running.pauseWithin("1 hour")), { startImmediately: true })
      yield* Deferred.succeed(gate, 1)
      assert.strictEqual((yield* Fiber.join(pausing)).reason._tag, "Refused")
      isRefusing = false
      assert.deepStrictEqual(yield* running.ended, HALTED)
      assert.strictEqual(asked, 2)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        VirtualMachine.layer.pipe(Layer.provideMerge(refuses), Layer.provideMerge(Simulated.layer), Layer.fresh),
        { local: true }
      )
    )
  })
})

describe("a handler of a client", () => {
  it.effect("that never ends and cannot be interrupted delays the close of that client, and nobody else", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.store(DATA), g.inp(0x180), g.stop))
      const scope = yield* Scope.make()
      const gate = yield* Deferred.make<IoValue>()
      yield* Scope.provide(
        vm.io.register({
          name: "endless",
          ranges: [TEST_PORTS],
          handle: () => Effect.uninterruptible(Deferred.await(gate))
        }),
        scope
      )
      const running = yield* vm.start
      yield* turns(5)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      assert.deepStrictEqual(yield* running.ended, HALTED)
      yield* running.pause
      assert.isUndefined(closing.pollUnsafe())
      assert.strictEqual((yield* vm.memory.read32(DATA)) & 0xff, 0xff)
      yield* Deferred.succeed(gate, 1)
      yield* Fiber.join(closing)
    }).pipe(onSimulated()))
})

describe("a drain that a proceed overtook", () => {
  it.effect("takes no other's hold along when it gives up", () =>
    Effect.gen(function*() {
      const { seen, vm } = yield* withPending
      const claim = yield* (yield* pendingOf(vm)).claim
      const overtaken = yield* Effect.forkChild(Effect.flip(vm.io.drain(10)), { startImmediately: true })
      yield* vm.io.proceed
      const patient = yield* Effect.forkChild(vm.io.drain("1 hour"), { startImmediately: true })
      yield* TestClock.adjust(10)
      assert.strictEqual((yield* Fiber.join(overtaken)).reason._tag, "DrainTimeout")
      yield* claim.complete(7)
      yield* Fiber.join(patient)
      yield* turns()
      assert.deepStrictEqual([seen.length, yield* states(vm)], [0, ["Pending"]])
    }).pipe(onSimulated()))
})
