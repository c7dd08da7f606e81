/** FaultyGate does as its plan says, and no hypercall that fails makes a VM's owner lose the VM or its memory. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Logger, Option, Result, Schema, Scope } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import { Errno } from "../../src/domain/Errno.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import * as VirtualMachines from "../../src/services/VirtualMachine.ts"
import { VirtualMachineError } from "../../src/services/VirtualMachineError.ts"
import * as FaultyGate from "../../src/testing/FaultyGate.ts"
import * as Generator from "../../src/testing/Generator.ts"
import { Given, leftovers, machinesOver, nothing, vmsLeft } from "../support/adversaries.ts"
import { EPERM, makeRaw } from "../support/gate.ts"
import * as g from "../support/guest.ts"
import { boot, recorder, runToEnd } from "../support/machines.ts"

const over = (options: FaultyGate.Options) => machinesOver(FaultyGate.layer(options))

// What a VM logs about hypercalls that were made to fail is no news here.
const onGate = (options: FaultyGate.Options) =>
  Effect.provide(Layer.mergeAll(over(options), Logger.layer([])), { local: true })

const { CreateVm, DestroyVm, NotifyRequestFinish, PauseVm, SetMemoryRegions } = HypercallId

describe("the gate", () => {
  it.effect("refuses, does and refuses, and answers late, each at its place", () =>
    Effect.gen(function*() {
      const gate = yield* FaultyGate.FaultyGate
      const raw = yield* makeRaw
      const first = yield* raw.create(1n)
      assert.strictEqual(first.result, -Errno.ENOMEM)
      assert.deepStrictEqual(yield* vmsLeft, [])
      yield* gate.restart
      // The first of its id, whatever came before it.
      assert.strictEqual((yield* raw.create(1n)).result, -Errno.ENOMEM)
      assert.strictEqual((yield* raw.create(1n)).vmId, 1)
      assert.strictEqual(yield* raw.pause(1), 0)
      assert.strictEqual(yield* raw.destroy(1), -Errno.EBUSY)
      assert.strictEqual(yield* raw.pause(1), EPERM)
      assert.strictEqual(
        yield* gate.report,
        "hypercall 1, CreateVm: Refuse ENOMEM (-12)\n" +
          "hypercall 4, DestroyVm: AppliedButRefused EBUSY (-16)"
      )
    }).pipe(onGate({
      plan: [
        { nth: 1, id: CreateVm, fault: { _tag: "Refuse", errno: Errno.ENOMEM } },
        { nth: 4, fault: { _tag: "AppliedButRefused", errno: Errno.EBUSY } }
      ]
    })))

  it.effect("answers late by turns of the host", () =>
    Effect.gen(function*() {
      const raw = yield* makeRaw
      const creating = yield* Effect.forkChild(raw.create(1n), { startImmediately: true })
      for (let turn = 0; turn < 5; turn++) {
        assert.isUndefined(creating.pollUnsafe(), `turn ${turn}`)
        yield* Effect.yieldNow
      }
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* Fiber.join(creating), { result: 0, vmId: 1, vcpus: 1 })
    }).pipe(onGate({ plan: [{ nth: 1, fault: { _tag: "Late", turns: 5 } }] })))

  it.effect("treats NOTIFY_REQUEST_FINISH as a hypercall, in both its forms", () =>
    Effect.gen(function*() {
      const raw = yield* makeRaw
      const { vmId } = yield* raw.create(1n)
      yield* raw.setPage(vmId, BigInt(yield* raw.newPage()))
      const { notifyFinish } = raw.gate
      assert.strictEqual(notifyFinish(vmId, 0), -Errno.EIO)
      assert.strictEqual(yield* raw.notify(vmId, 0n), -Errno.EAGAIN)
      assert.strictEqual(notifyFinish(vmId, 0), 0)
      assert.strictEqual(notifyFinish(vmId, 1), -Errno.EPERM)
      const gate = yield* FaultyGate.FaultyGate
      assert.deepStrictEqual((yield* gate.faults).map(({ id, nth }) => [nth, id]), [
        [3, NotifyRequestFinish],
        [4, NotifyRequestFinish],
        [5, NotifyRequestFinish]
      ])
    }).pipe(onGate({
      plan: [
        { nth: 1, id: NotifyRequestFinish, fault: { _tag: "Refuse", errno: Errno.EIO } },
        { nth: 2, id: NotifyRequestFinish, fault: { _tag: "AppliedButRefused", errno: Errno.EAGAIN } },
        { nth: 3, id: NotifyRequestFinish, fault: { _tag: "Late", turns: 2 } }
      ]
    })))

  it.effect("draws the same faults for the same seed, of the hypercalls that are named", () =>
    Effect.gen(function*() {
      const drawn = (options: FaultyGate.Options) =>
        Effect.gen(function*() {
          const raw = yield* makeRaw
          for (let i = 0; i < 100; i++) yield* i % 2 === 0 ? raw.pause(1) : raw.reset(1)
          return yield* (yield* FaultyGate.FaultyGate).faults
        }).pipe(onGate(options))
      const first = yield* drawn({ seed: 1, rate: 0.3 })
      assert.deepStrictEqual(yield* drawn({ seed: 1, rate: 0.3 }), first)
      assert.notDeepEqual(yield* drawn({ seed: 2, rate: 0.3 }), first)
      assert.sameMembers([...new Set(first.map(({ fault }) => fault._tag))], ["Refuse", "AppliedButRefused", "Late"])
      assert.isTrue(first.every((fault) => Schema.is(FaultyGate.GateFault)(fault)))
      const named = yield* drawn({ seed: 1, rate: 1, ids: [PauseVm], faults: { Refuse: 1 } })
      assert.lengthOf(named, 50)
      assert.isTrue(named.every(({ fault, id }) => id === PauseVm && fault._tag === "Refuse"))
      // What was drawn, written down as a plan, is the same again.
      const plan = first.map(({ fault, nth }) => ({ nth, fault }))
      assert.deepStrictEqual(yield* drawn({ plan }), first)
    }))

  it.effect("is refused as a typed error when its options are none", () =>
    Effect.gen(function*() {
      for (
        const options of [
          { plan: [{ nth: 0, fault: { _tag: "Refuse", errno: 1 } }] },
          { plan: [{ nth: 1, fault: { _tag: "Refuse", errno: -1 } }] },
          { plan: [{ nth: 1, fault: { _tag: "Late", turns: 0 } }] },
          { plan: [{ nth: 1, fault: { _tag: "Vanish" } }] },
          { seed: 1, faults: { Refuse: 0 } },
          { seed: 1, rate: 7 },
          {}
        ]
      ) {
        const error = yield* Effect.flip(Effect.void.pipe(onGate(options as FaultyGate.Options)))
        assert.instanceOf(error, FaultyGate.AdversaryError, JSON.stringify(options))
      }
    }))
})

/** One VM through its whole life, with memory that comes and goes, and a second life after a reset. */
const life = Effect.gen(function*() {
  const vm = yield* boot(g.code(g.inp(0x100), g.out(0x101, 7), g.stop))
  yield* recorder(vm, { answer: () => 5 })
  const extra = yield* vm.mapMemory({ guestAddress: 0x10_0000, bytes: 0x2000 })
  yield* vm.unmapMemory(extra)
  const running = yield* vm.start
  yield* running.ended
  const paused = yield* running.pause
  yield* runToEnd(yield* paused.reset)
})

// What a life takes, and much more: a VM whose notify was refused waits for ever.
const TURNS = 200

/** Lives on a gate with these faults; then the gate works again, and another VM comes and goes. */
const liveOn = (plan: FaultyGate.Plan) =>
  Effect.gen(function*() {
    const gate = yield* FaultyGate.FaultyGate
    const living = yield* Effect.forkChild(Effect.scoped(life), { startImmediately: true })
    for (let turn = 0; turn < TURNS && living.pollUnsafe() === undefined; turn++) yield* Effect.yieldNow
    yield* Fiber.interrupt(living)
    const exit = yield* Fiber.await(living)
    const report = yield* gate.report
    yield* gate.stop
    const left = yield* leftovers
    const machines = yield* VirtualMachine
    yield* Effect.scoped(machines.create({ memoryBytes: 4096 }))
    return { exit, report, left, leftLater: yield* leftovers, faults: yield* gate.faults }
  }).pipe(onGate({ plan }))

/** Ends well, with a typed error, or (waiting for an answer that never comes) by interruption: never by a defect. */
const problemWith = (exit: Exit.Exit<void, unknown>): string | undefined => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return undefined
  const error = Cause.findErrorOption(exit.cause)
  const isTyped = Option.isSome(error) && error.value instanceof VirtualMachineError && !Cause.hasDies(exit.cause)
  return isTyped ? undefined : Cause.pretty(exit.cause)
}

/** A VM of whose making its owner was told the contrary is nobody's: no program can know of it. */
const isUnknown = (faults: ReadonlyArray<FaultyGate.GateFault>) =>
  faults.some(({ fault, id }) => id === CreateVm && fault._tag === "AppliedButRefused")

describe("a VM's life", () => {
  const faults: ReadonlyArray<FaultyGate.Fault> = [
    { _tag: "Refuse", errno: Errno.EPERM },
    { _tag: "AppliedButRefused", errno: Errno.EPERM },
    { _tag: "Late", turns: 3 }
  ]
  for (const fault of faults) {
    it.effect(`in which any one hypercall meets ${fault._tag} ends typed, with nothing left`, () =>
      Effect.gen(function*() {
        const met = new Set<number>()
        let nth = 0
        for (let isMet = true; isMet;) {
          nth++
          const { exit, faults: seen, left, leftLater, report } = yield* liveOn([{ nth, fault }])
          isMet = seen.length > 0
          for (const { id } of seen) met.add(id)
          assert.isUndefined(problemWith(exit), report)
          if (fault._tag === "Late" || !isMet) assert.isTrue(Exit.isSuccess(exit), report)
          if (isUnknown(seen)) continue
          // A VM that was destroyed although that was refused is known to be gone when its id is given again.
          const isMisled = fault._tag === "AppliedButRefused" && seen[0]?.id === DestroyVm
          if (!isMisled) assert.deepStrictEqual(left, nothing, report)
          assert.deepStrictEqual(leftLater, nothing, report)
        }
        assert.isAbove(nth, 17)
        assert.sameMembers(
          [...met],
          Object.values(HypercallId).filter((id) => id !== HypercallId.SetIrqLine)
        )
      }))
  }

  it.effect("in which several hypercalls fail ends typed, with nothing left", () =>
    Effect.gen(function*() {
      const plans = yield* Generator.sample(FaultyGate.plans(24), { count: 300, seed: 20260101 })
      let failed = 0
      for (const plan of plans) {
        assert.isTrue(Schema.is(FaultyGate.Plan)(plan))
        const { exit, faults: seen, leftLater, report } = yield* liveOn(plan)
        assert.isUndefined(problemWith(exit), report)
        if (Exit.isFailure(exit)) failed++
        if (!isUnknown(seen)) assert.deepStrictEqual(leftLater, nothing, report)
      }
      assert.isAbove(failed, 50)
    }))
})

describe("a VM that cannot be destroyed", () => {
  const refuseDestroy = { seed: 1, rate: 1, ids: [DestroyVm], faults: { Refuse: 1 } } as const

  it.effect("keeps its memory, for the hypervisor still has it, until a later VM finds the gate working", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine
      const gate = yield* FaultyGate.FaultyGate
      yield* Effect.scoped(machines.create({ memoryBytes: 4096 }))
      assert.deepStrictEqual(yield* leftovers, { vms: [1], memory: ["IoRequestPage", "GuestRam"] })
      // It fails again, and loses nothing by it.
      yield* Effect.scoped(machines.create({ memoryBytes: 4096 }))
      assert.deepStrictEqual((yield* leftovers).vms, [1, 2])
      yield* gate.stop
      yield* Effect.scoped(machines.create({ memoryBytes: 4096 }))
      assert.deepStrictEqual(yield* leftovers, nothing)
    }).pipe(onGate(refuseDestroy)))

  it.effect("is tried once more when the layer goes", () =>
    Effect.gen(function*() {
      const gate = yield* FaultyGate.FaultyGate
      const scope = yield* Scope.make()
      const own = yield* Layer.build(Layer.fresh(VirtualMachines.layer)).pipe(Scope.provide(scope))
      yield* Effect.scoped(Context.get(own, VirtualMachine).create({ memoryBytes: 4096 }))
      assert.deepStrictEqual(yield* leftovers, { vms: [1], memory: ["IoRequestPage", "GuestRam"] })
      yield* gate.stop
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* leftovers, nothing)
    }).pipe(onGate(refuseDestroy)))

  it.effect("is destroyed although its pause is refused, when it is paused already", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine
      const gate = yield* FaultyGate.FaultyGate
      yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* machines.create({ memoryBytes: 4096 })
        // The hypervisor paused it, whatever it says.
        yield* Effect.flip(vm.pause)
        assert.strictEqual((yield* vm.state)._tag, "Created")
      }))
      assert.isAbove(yield* gate.count, 1)
      yield* gate.stop
      assert.deepStrictEqual(yield* leftovers, nothing)
    }).pipe(onGate({ seed: 1, rate: 1, ids: [PauseVm], faults: { AppliedButRefused: 1 } })))
})

describe("RAM whose mapping was refused", () => {
  const region = { guestAddress: 0x10_0000, bytes: 0x1000 }

  it.effect("is kept until the VM ends when it cannot be unmapped", () =>
    Effect.gen(function*() {
      const given = yield* Given
      const ramRegions = () => given.regions().filter((purpose) => purpose === "GuestRam").length
      const scope = yield* Scope.make()
      const vm = yield* boot(g.code(g.stop)).pipe(Scope.provide(scope))
      yield* Effect.flip(vm.mapMemory(region))
      assert.strictEqual(ramRegions(), 2)
      const other = { guestAddress: 0x20_0000, bytes: 0x1000 }
      yield* vm.mapMemory(other)
      // What another unmapping gives back is its own.
      yield* vm.unmapMemory(other)
      assert.strictEqual(ramRegions(), 2)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* leftovers, nothing)
    }).pipe(onGate({
      plan: [
        { nth: 2, id: SetMemoryRegions, fault: { _tag: "AppliedButRefused", errno: 1 } },
        { nth: 3, id: SetMemoryRegions, fault: { _tag: "Refuse", errno: 1 } }
      ]
    })))

  it.effect("is unmapped before it is given back, for it may have been mapped all the same", () =>
    Effect.gen(function*() {
      const memory = yield* ServiceMemory
      const given = yield* Given
      const vm = yield* boot(g.code(g.load(region.guestAddress), g.stop))
      const before = given.regions()
      yield* Effect.flip(vm.mapMemory(region))
      assert.deepStrictEqual(given.regions(), before)
      // Whoever gets those pages now must not be seen by the guest.
      const other = yield* memory.allocate({ bytes: 0x1000, purpose: { _tag: "HypercallStructures" } })
      assert.isTrue(Result.isSuccess(memory.write(other.address, Uint8Array.of(0x66))))
      yield* vm.mapMemory(region)
      yield* Effect.orDie(vm.memory.write(region.guestAddress, Uint8Array.of(0x5a)))
      const running = yield* vm.start
      yield* running.ended
      const paused = yield* running.pause
      assert.strictEqual(Number((yield* paused.registers(0)).gprs.rax & 0xffn), 0x5a)
    }).pipe(onGate({ plan: [{ nth: 2, id: SetMemoryRegions, fault: { _tag: "AppliedButRefused", errno: 1 } }] })))
})
