/** Commands that are interrupted, and scopes that are closed, at any of their steps. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Scheduler, Scope } from "effect"
import type { IoValue } from "../../src/domain/IoRequest.ts"
import { Resume } from "../../src/services/Hypervisor.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import type { CreatedVm, PausedVm } from "../../src/services/Vm.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, TEST_PORTS, turns, until } from "../support/machines.ts"
import { Stepper } from "../support/Stepper.ts"

/** Forks an effect that goes on only when the stepper runs. */
const stepped = <A, E, R>(stepper: Stepper, effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    Effect.context<R>(),
    (context) => Effect.runForkWith(Context.add(context, Scheduler.Scheduler, stepper))(effect)
  )

/** Interrupts a stepped fiber and runs it to its end. */
const interruptNow = <A, E>(stepper: Stepper, fiber: Fiber.Fiber<A, E>) =>
  Effect.gen(function*() {
    const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
    for (let i = 0; i < 100 && interrupting.pollUnsafe() === undefined; i++) {
      stepper.run()
      yield* Effect.yieldNow
    }
    yield* Fiber.join(interrupting)
  })

const guest = g.code(g.inp(0x100), g.inp(0x101), g.stop)

/** A VM whose client holds its first request until the gate opens. */
const withHeldRequest = Effect.gen(function*() {
  const vm = yield* boot(guest)
  const gate = yield* Deferred.make<void>()
  let asked = 0
  yield* vm.io.register({
    name: "held",
    ranges: [TEST_PORTS],
    handle: (): Effect.Effect<IoValue> => {
      asked++
      return Effect.as(Deferred.await(gate), 1)
    }
  })
  const running = yield* vm.start
  yield* until(() => asked > 0)
  return { vm, gate, running }
})

/** Whatever was interrupted: the VM is Running and its guest comes to its end, or it is Paused and stands still. */
const assertSound = (vm: CreatedVm) =>
  Effect.gen(function*() {
    const state = yield* vm.state
    yield* turns(10)
    const { slots } = yield* vm.requests.inspect
    if (state._tag === "Running") assert.deepStrictEqual(slots.map((slot) => slot.state), ["Free"], "served to its end")
    else assert.isTrue(slots.every(({ held }) => !held))
    return state._tag
  })

describe("interruption", () => {
  it.effect("of a pause, at any step before or after its requests were drained", () =>
    Effect.gen(function*() {
      const outcomes = new Set<string>()
      for (let steps = 0; steps < 60; steps++) {
        for (const isDrained of [false, true]) {
          const outcome = yield* Effect.gen(function*() {
            const { gate, running, vm } = yield* withHeldRequest
            const stepper = new Stepper()
            const pausing = yield* stepped(stepper, running.pauseWithin("1 hour"))
            if (isDrained) {
              stepper.run()
              yield* Deferred.succeed(gate, undefined)
              yield* turns(2)
            }
            stepper.run(steps)
            yield* interruptNow(stepper, pausing)
            yield* Deferred.succeed(gate, undefined)
            return yield* assertSound(vm)
          }).pipe(onSimulated())
          outcomes.add(outcome)
        }
      }
      assert.deepStrictEqual([...outcomes].toSorted(), ["Paused", "Running"], "both sides were reached")
    }))

  it.effect("of a resume or a reset, at any step", () =>
    Effect.gen(function*() {
      const commands: ReadonlyArray<(paused: PausedVm) => Effect.Effect<unknown, unknown, Resume>> = [
        (paused) => paused.resume,
        (paused) => paused.reset
      ]
      const outcomes = new Set<string>()
      for (const command of commands) {
        for (let steps = 0; steps < 40; steps++) {
          const outcome = yield* Effect.gen(function*() {
            const { gate, running, vm } = yield* withHeldRequest
            yield* Deferred.succeed(gate, undefined)
            const paused = yield* running.pause
            const stepper = new Stepper()
            const commanding = yield* stepped(stepper, command(paused))
            stepper.run(steps)
            yield* interruptNow(stepper, commanding)
            return yield* assertSound(vm)
          }).pipe(onSimulated())
          outcomes.add(outcome)
        }
      }
      assert.deepStrictEqual([...outcomes].toSorted(), ["Created", "Paused", "Running"])
    }))

  it.effect("of a create, at any step, leaves nothing behind", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine
      let wasMade = false
      for (let steps = 0; steps < 200 && !wasMade; steps += 3) {
        const scope = yield* Scope.make()
        const stepper = new Stepper()
        const creating = yield* stepped(stepper, Scope.provide(machines.create({ memoryBytes: 4096 }), scope))
        stepper.run(steps)
        wasMade = creating.pollUnsafe() !== undefined
        yield* interruptNow(stepper, creating)
        const closing = yield* stepped(stepper, Scope.close(scope, Exit.void))
        for (let i = 0; i < 100 && closing.pollUnsafe() === undefined; i++) {
          stepper.run()
          yield* Effect.yieldNow
        }
        const next = yield* Effect.scoped(Effect.map(machines.create({ memoryBytes: 4096 }), ({ id }) => id))
        assert.strictEqual(next, 1, `after ${steps} steps`)
      }
      assert.isTrue(wasMade, "the last step was reached")
    }).pipe(onSimulated()))
})
