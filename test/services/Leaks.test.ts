/** A thousand VMs killed at random points, one after the other on one hypervisor: nothing of them stays. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import { IrqLines } from "../../src/services/Hypervisor.ts"
import { Machine } from "../../src/services/Machine.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import type { CreatedVm, PausedVm, RunningVm, Vm } from "../../src/services/Vm.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, TEST_PORTS, turns } from "../support/machines.ts"

const VMS = 1000

/** Numbers from 0 to `below` - 1, the same for the same seed. */
const chance = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = Math.imul(state, 1_664_525) + 1_013_904_223 >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
}

const guests: ReadonlyArray<Uint8Array> = [
  g.code(g.stop),
  g.code(g.loop(50, g.inp(0x100)), g.forever(g.inp(0x110))),
  g.code(g.forever(g.inp(0x110), g.out(0x120, 5))),
  g.code(g.inp(0x1f0), g.stop),
  g.code(g.loop(100, g.repOut(0x101, 0x8000, 20, 2), [0x49]), g.stop),
  g.code([0x0f, 0x0b]),
  g.code(g.spin)
]

describe("leaks", () => {
  it.effect(`of ${VMS} VMs that were killed at random points`, () =>
    Effect.gen(function*() {
      const pick = chance(20260101)
      const machines = yield* VirtualMachine
      const memory = yield* ServiceMemory
      const irq = yield* IrqLines
      /** Fibers of handlers and devices that have begun and not ended. */
      let alive = 0
      const counted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.acquireUseRelease(Effect.sync(() => alive++), () => effect, () => Effect.sync(() => alive--))
      const stages = new Map<string, number>()
      let resets = 0

      const device = Effect.gen(function*() {
        const { fork, io, onReset, vmId } = yield* Machine
        yield* onReset(Effect.void)
        yield* fork(
          counted(Effect.forever(Effect.andThen(Effect.sleep("20 micros"), Effect.sync(() => irq.set(vmId, 4, true)))))
        )
        yield* io.register({
          name: "device",
          ranges: [TEST_PORTS],
          handle: (request): Effect.Effect<IoValue> => {
            const port = "port" in request ? request.port : 0
            if (port === 0x1f0) return counted(Effect.never)
            return port >= 0x110 ? counted(Effect.as(Effect.sleep("5 micros"), 1)) : Effect.succeed(1)
          }
        })
      })

      /** What the owner does with a VM before it dies; may be cut off at any point. */
      const life = (vm: CreatedVm, note: (stage: string) => void) =>
        Effect.gen(function*() {
          note("created")
          yield* vm.attach(device)
          if (pick(8) === 0) yield* vm.mapMemory({ guestAddress: 0x10_0000, bytes: 0x2000 })
          if (pick(8) === 0) return yield* Effect.never
          let running: RunningVm = yield* vm.start
          for (;;) {
            note("running")
            yield* turns(pick(3))
            note("pausing")
            const paused: PausedVm = yield* running.pauseWithin("1 hour")
            note("paused")
            if (pick(4) === 0) yield* turns(1)
            if (pick(3) === 0) {
              resets++
              running = yield* (yield* paused.reset).start
            } else running = yield* paused.resume
          }
        })

      const probe = Effect.scoped(
        Effect.map(memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } }), ({ address }) => address)
      )
      const alone = Effect.scoped(Effect.map(machines.create({ memoryBytes: 4096 }), ({ id }) => id))
      yield* alone
      const baseline = yield* probe
      let before: Vm | undefined
      let asked = 0

      for (let i = 0; i < VMS; i++) {
        const scope = yield* Scope.make()
        const vcpus = 1 + pick(3)
        let stage = "creating"
        const living = yield* Effect.forkChild(
          Effect.gen(function*() {
            const vm = yield* Scope.provide(
              boot(...Array.from({ length: vcpus }, () => guests[pick(guests.length)]!)),
              scope
            )
            before = vm
            yield* life(vm, (each) => {
              stage = each
            })
          }),
          { startImmediately: true }
        )
        yield* turns(pick(5))
        stages.set(stage, (stages.get(stage) ?? 0) + 1)
        switch (pick(3)) {
          case 0:
            yield* Scope.close(scope, Exit.void)
            yield* Fiber.interrupt(living)
            break
          case 1:
            yield* Fiber.interrupt(living)
            yield* Scope.close(scope, Exit.void)
            break
          default:
            yield* Effect.all([Scope.close(scope, Exit.void), Fiber.interrupt(living)], { concurrency: 2 })
        }
        const context = `VM ${i}, killed while ${stage}`
        assert.strictEqual(alive, 0, `${context}: fibers that run on`)
        assert.strictEqual(yield* alone, 1, `${context}: a VM that the hypervisor still has`)
        assert.strictEqual(yield* probe, baseline, `${context}: Service VM memory that is still taken`)
        if (before === undefined) continue
        // Its vCPUs and its route of upcalls are gone: nobody asks its dispatcher any more.
        asked = (yield* before.io.counts).reduce((sum, { requests }) => sum + requests, 0)
        if (i % 50 === 0) yield* turns(5)
        assert.strictEqual((yield* before.io.counts).reduce((sum, { requests }) => sum + requests, 0), asked)
        assert.deepStrictEqual((yield* before.io.counts).filter(({ client }) => client === "device"), [], context)
        assert.deepStrictEqual(yield* before.memory.regions, [], context)
      }
      // Otherwise the deaths were not random enough to mean anything.
      for (const stage of ["created", "running", "pausing", "paused"]) {
        assert.isAbove(stages.get(stage) ?? 0, 5, `${stage} of ${JSON.stringify([...stages])}`)
      }
      assert.isAbove(resets, 50)
    }).pipe(onSimulated()))
})
