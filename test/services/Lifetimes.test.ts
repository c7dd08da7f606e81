/** Failures and ends in an order that nobody planned: nothing stays half in an old state, and nothing is left over. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Scope } from "effect"
import * as v8 from "node:v8"
import * as vm8 from "node:vm"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as g from "../support/guest.ts"
import { boot, bootWith, onSimulated, runToEnd, TEST_PORTS, turns } from "../support/machines.ts"

const oneRead = g.code(g.inp(0x100), g.stop)

describe("a device that fails to reset", () => {
  it.effect("keeps neither the others nor the VM in the old life", () =>
    Effect.gen(function*() {
      const vm = yield* boot(oneRead)
      let resets = 0
      yield* vm.attach(vm.machine.onReset(Effect.die("broken")))
      yield* vm.attach(vm.machine.onReset(Effect.sync(() => resets++)))
      const running = yield* vm.start
      yield* running.ended
      const again = yield* Effect.flatMap(running.pause, (paused) => paused.reset)
      assert.strictEqual(resets, 1)
      assert.deepStrictEqual(yield* runToEnd(again), { _tag: "Halted" })
    }).pipe(onSimulated()))
})

describe("RAM that could not be mapped", () => {
  it.effect("is given back at once (CVE-2022-1651)", () =>
    Effect.gen(function*() {
      const vm = yield* boot()
      const memory = yield* ServiceMemory
      const nextAddress = Effect.scoped(
        Effect.map(memory.allocate({ bytes: 4096, purpose: { _tag: "HypercallStructures" } }), ({ address }) => address)
      )
      const before = yield* nextAddress
      const rights = { read: "yes", write: true, execute: true } as never
      for (let i = 0; i < 3; i++) {
        const error = yield* Effect.flip(vm.mapMemory({ guestAddress: 0x100_0000, bytes: 1 << 20, rights }))
        assert.strictEqual(error.reason._tag, "Refused")
      }
      assert.strictEqual(yield* nextAddress, before)
    }).pipe(onSimulated()))
})

describe("a VirtualMachine layer that goes first", () => {
  it.effect("takes its VMs along, so that no guest waits for ever and the hypervisor has their room again", () =>
    Effect.gen(function*() {
      const hypervisor = yield* Layer.build(Simulated.layerWith({ maxVms: 1 }))
      const vmScope = yield* Scope.make()
      for (let round = 0; round < 2; round++) {
        const layerScope = yield* Scope.make()
        const machines = yield* Layer.build(Layer.provide(VirtualMachine.layer, Layer.succeedContext(hypervisor))).pipe(
          Scope.provide(layerScope)
        )
        const vm = yield* boot(g.code(g.forever(g.inp(0x100)))).pipe(
          Effect.provideContext(machines),
          Scope.provide(vmScope)
        )
        yield* vm.start
        yield* turns(3)
        yield* Scope.close(layerScope, Exit.void)
        assert.deepStrictEqual(yield* vm.state, { _tag: "Destroyed" })
      }
      yield* Scope.close(vmScope, Exit.void)
    }).pipe(Effect.scoped))
})

describe("an emulated VM that ends while its CPU waits inside an instruction", () => {
  // Twelve memories of 64 MiB are far above what anything else in this process comes and goes with.
  const VMS = 12
  const RAM = 64 << 20

  const collect = Effect.promise(async () => {
    v8.setFlagsFromString("--expose-gc")
    const gc = vm8.runInNewContext("gc") as () => void
    for (let i = 0; i < 5; i++) {
      gc()
      await new Promise((resolve) => setImmediate(resolve))
    }
    return process.memoryUsage().external
  })

  const closeWhileHeld = Effect.gen(function*() {
    const vm = yield* bootWith({ memoryBytes: RAM }, oneRead)
    const asked = yield* Deferred.make<void>()
    yield* vm.attach(vm.io.register({
      name: "held",
      ranges: [TEST_PORTS],
      handle: () => Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
    }))
    yield* vm.start
    yield* Deferred.await(asked)
    yield* turns(3)
  }).pipe(Effect.scoped)

  it.live("leaves no memory behind", () =>
    Effect.gen(function*() {
      yield* closeWhileHeld
      const before = yield* collect
      for (let i = 0; i < VMS; i++) yield* closeWhileHeld
      assert.isBelow((yield* collect) - before, VMS / 2 * RAM)
    }).pipe(Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Emulated.layer)))))
})
