/**
 * Everything at once, on more vCPUs: too many schedules to run them all, so some are drawn by seed.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { IoDispatcherError } from "../../../src/services/IoDispatcher.ts"
import type { VirtualMachineError } from "../../../src/services/VirtualMachineError.ts"
import type { CreatedVm, PausedVm } from "../../../src/services/Vm.ts"
import { actors, advance, step } from "../../../src/testing/Explorer.ts"
import { type Guest, make } from "../World.ts"
import { A, B, C, quickA, randomScenario, slowA, slowB } from "./Scenario.ts"

const PROGRAMS = [[A, B, A + 1, C], [B + 1, A + 2, C + 1], [A + 3, A + 4, B + 2], [C + 2, B + 3, B + 4, A + 5]]

const D = 0x400

const times = <E, R>(count: number, effect: Effect.Effect<unknown, E, R>): Effect.Effect<void, E, R> =>
  count === 0 ? Effect.void : Effect.andThen(effect, Effect.suspend(() => times(count - 1, effect)))

/** Pauses the VM if it can be by then, does something with it, and comes back with a VM that runs. */
const whilePaused = <E, R>(
  guest: Guest,
  vm: CreatedVm,
  then: (paused: PausedVm) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, VirtualMachineError | E, R> =>
  Effect.gen(function*() {
    let running = yield* guest.start(vm)
    for (let i = 0; i < 2; i++) {
      yield* step("the VM is paused")
      const paused = yield* Effect.result(guest.pause(running, "10 millis"))
      if (Result.isFailure(paused)) continue
      yield* then(paused.success)
      yield* step("the VM is resumed")
      running = yield* guest.resume(paused.success)
    }
  })

const clientsComeAndGo = (guest: Guest): Effect.Effect<void, IoDispatcherError, Scope.Scope> =>
  Effect.gen(function*() {
    const a = yield* guest.client({ ...slowA, cleansUp: true })
    yield* step("A is released")
    yield* a.release
    yield* guest.client({ ...quickA, name: "A again" })
  })

const rangesMove = (guest: Guest): Effect.Effect<void, IoDispatcherError, Scope.Scope> =>
  Effect.gen(function*() {
    const b = yield* guest.client({ ...slowB, deadline: "25 millis" })
    yield* step("B moves")
    yield* b.move(D, D + 0xf)
    yield* step("B moves back")
    yield* b.move(B, B + 0xf)
  })

const everything = randomScenario(
  "everything, at random",
  "clients come, go and move while four vCPUs run and the VM is paused and resumed; upcalls get lost",
  4000,
  Effect.gen(function*() {
    const { guest } = yield* make({
      programs: PROGRAMS,
      upcalls: "MayBeLost",
      rescan: "5 millis",
      pauseTakesTime: true
    })
    yield* guest.client({ name: "C", first: C, last: C + 0xf })
    yield* actors<IoDispatcherError | VirtualMachineError, Scope.Scope>({
      clients: clientsComeAndGo(guest),
      ranges: rangesMove(guest),
      controller: whilePaused(guest, guest.vm, () => Effect.void),
      time: times(3, Effect.andThen(step("ten milliseconds pass"), advance("10 millis")))
    })
    yield* guest.finish
  })
)

const toTheEnd = randomScenario(
  "everything and VM destroy, at random",
  "as before, and the VM's scope is closed at any moment",
  4000,
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: PROGRAMS, upcalls: "Late", pauseTakesTime: true })
    yield* guest.client({ name: "C", first: C, last: C + 0xf, isSlow: true, cleansUp: true })
    yield* actors<IoDispatcherError, Scope.Scope>({
      clients: clientsComeAndGo(guest),
      ranges: rangesMove(guest),
      // Refused from when the VM is closed.
      controller: Effect.ignore(whilePaused(guest, guest.vm, () => Effect.void)),
      closer: Effect.andThen(step("the VM is closed"), guest.close),
      time: times(3, Effect.andThen(step("ten milliseconds pass"), advance("10 millis")))
    })
    yield* guest.finish
  })
)

const parallel = randomScenario(
  "parallel hypervisor, at random",
  "three vCPUs act between any two accesses of the services, and a client comes and goes",
  4000,
  Effect.gen(function*() {
    const { guest } = yield* make({
      programs: [[A, B, A + 1], [B + 1, A + 2, B + 2], [A + 3, B + 3]],
      upcalls: "Late",
      isParallel: true,
      isPolled: (port) => port % 2 === 0
    })
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* actors({ clients: clientsComeAndGo(guest) })
    yield* guest.finish
  })
)

export const random = [everything, toTheEnd, parallel]
