/**
 * What happens to a VM's requests when the VM is paused, reset or closed: laws 4, 9, 10 and 11.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { VirtualMachineError } from "../../../src/services/VirtualMachineError.ts"
import type { RunningVm } from "../../../src/services/Vm.ts"
import { actors, advance, step } from "../../../src/testing/Explorer.ts"
import { type Guest, make } from "../World.ts"
import { A, B, scenario, slowA, slowWorld } from "./Scenario.ts"

const pauseAndResume = (guest: Guest) =>
  Effect.gen(function*() {
    const running = yield* guest.start(guest.vm)
    yield* step("the VM is paused")
    const paused = yield* guest.pause(running)
    yield* step("the VM is resumed")
    yield* guest.resume(paused)
  })

const pauseAndReset = (guest: Guest, running: RunningVm) =>
  Effect.gen(function*() {
    yield* step("the VM is paused")
    const paused = yield* guest.pause(running)
    yield* step("the VM is reset")
    yield* guest.start(yield* guest.reset(paused))
  })

/** Every answer is a client's: a pause that is over has changed nothing. */
const pause = scenario(
  "pause",
  "the VM is paused, which takes a while, and resumed",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, B], [B + 1, A + 1]], pauseTakesTime: true })
    yield* actors({ controller: pauseAndResume(guest) })
    yield* guest.finish
  })
)

const pauseLate = scenario(
  "pause with late upcalls",
  "upcalls arrive before, while and after the VM is paused",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A], [B]], upcalls: "Late", pauseTakesTime: true })
    yield* actors({ controller: pauseAndResume(guest) })
    yield* guest.finish
  })
)

const pauseAndDestroy = scenario(
  "pause and client destroy",
  "a client is released that a pause waits for",
  Effect.gen(function*() {
    const { a, guest } = yield* slowWorld({ programs: [[A], [B]] }, { cleansUp: true })
    yield* actors({
      controller: pauseAndResume(guest),
      client: Effect.andThen(step("A is released"), a.release)
    })
    yield* guest.finish
  })
)

const pauseTimesOut = scenario(
  "pause that may time out",
  "a pause's deadline runs out while a client may still answer",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, B], [A + 1]] })
    const running = yield* guest.start(guest.vm)
    yield* actors<VirtualMachineError>({
      controller: Effect.gen(function*() {
        yield* step("the VM is paused")
        const paused = yield* Effect.result(guest.pause(running, "10 millis"))
        if (Result.isSuccess(paused)) yield* guest.resume(paused.success)
        else if (paused.failure.reason._tag !== "NotDrained") yield* paused.failure
      }),
      time: Effect.andThen(step("ten milliseconds pass"), advance("10 millis"))
    })
    yield* guest.finish
  })
)

const drains = scenario(
  "pause and drain",
  "a program holds requests back by itself while the VM is paused and resumed",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A], [B]] })
    yield* actors<unknown>({
      controller: pauseAndResume(guest),
      program: Effect.gen(function*() {
        yield* step("a program drains")
        yield* guest.vm.io.drain()
        yield* step("the program proceeds")
        yield* guest.vm.io.proceed
      })
    })
    yield* guest.finish
  })
)

const reset = scenario(
  "reset",
  "the VM is paused, reset and started again; what waited is dropped",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, B], [B + 1]], upcalls: "Late", pauseTakesTime: true })
    const running = yield* guest.start(guest.vm)
    yield* actors({ controller: pauseAndReset(guest, running) })
    yield* guest.finish
  })
)

/** A program that serves a slot itself, if it finds a request there before the dispatcher does. */
const serveByHand = (guest: Guest, vcpu: number) =>
  Effect.gen(function*() {
    yield* step("a program looks at the page")
    const pending = yield* guest.vm.requests.pending(vcpu)
    if (pending === undefined) return
    const access = guest.ledger.takenByHand(pending.request)
    const held = yield* pending.claim
    yield* step("the program answers")
    const value = 0x1234
    if (access !== undefined) access.given = value
    yield* held.complete(value)
  })

const resetByHand = scenario(
  "reset and a request claimed by hand",
  "a program claims a request itself, before its upcall comes, and the VM is paused and reset",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A], [B]], upcalls: "Late" })
    const running = yield* guest.start(guest.vm)
    yield* actors<unknown>({
      controller: pauseAndReset(guest, running),
      // What it finds while the VM is paused is of the life that ends.
      program: Effect.ignore(serveByHand(guest, 0))
    })
    yield* guest.finish
  })
)

const resetAndDestroy = scenario(
  "reset and client destroy",
  "a client is released while the VM is paused, reset and started again",
  Effect.gen(function*() {
    const { a, guest } = yield* slowWorld({ programs: [[A], [B, A + 1]] }, { cleansUp: true })
    const running = yield* guest.start(guest.vm)
    yield* actors<VirtualMachineError>({
      controller: pauseAndReset(guest, running),
      client: Effect.andThen(step("A is released"), a.release)
    })
    yield* guest.finish
  })
)

const destroy = scenario(
  "VM destroy",
  "the VM's scope is closed while clients clean up; upcalls may still be on their way",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, A + 1], [B]], upcalls: "Late", pauseTakesTime: true }, {
      cleansUp: true
    })
    yield* guest.start(guest.vm)
    yield* actors({ controller: Effect.andThen(step("the VM is closed"), guest.close) })
    yield* guest.finish
  })
)

const destroyAndRelease = scenario(
  "VM destroy and client destroy",
  "the VM's scope and a client's are closed at the same time",
  Effect.gen(function*() {
    const { a, guest } = yield* slowWorld({ programs: [[A], [B]], pauseTakesTime: true }, { cleansUp: true })
    yield* guest.start(guest.vm)
    yield* actors({
      closer: Effect.andThen(step("the VM is closed"), guest.close),
      client: Effect.andThen(step("A is released"), a.release)
    })
    yield* guest.finish
  })
)

const destroyInHandler = scenario(
  "VM destroy inside of a handler",
  "a handler wakes, in its own stack, who closes the VM",
  Effect.gen(function*() {
    const called = yield* Deferred.make<void>()
    const { guest } = yield* slowWorld({ programs: [[A, A + 1], [A + 2, B]] }, {
      cleansUp: true,
      meanwhile: () => Deferred.succeed(called, undefined)
    })
    yield* guest.start(guest.vm)
    yield* actors({ controller: Effect.andThen(Deferred.await(called), guest.close) })
    yield* guest.finish
  })
)

const destroyAndPause = scenario(
  "VM destroy and pause",
  "the VM's scope is closed while a pause waits or the VM is paused",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A], [B]], pauseTakesTime: true }, { cleansUp: true })
    const running = yield* guest.start(guest.vm)
    yield* actors({
      pauser: Effect.gen(function*() {
        yield* step("the VM is paused")
        const paused = yield* Effect.result(guest.pause(running))
        if (Result.isFailure(paused)) return
        yield* step("the VM is resumed")
        yield* Effect.ignore(guest.resume(paused.success))
      }),
      closer: Effect.andThen(step("the VM is closed"), guest.close)
    })
    yield* guest.finish
  })
)

/** The new VM has the old one's id, and perhaps its memory. */
const staleHandle = scenario(
  "old handle, new VM",
  "commands on a VM that was closed reach no VM that came after it",
  Effect.gen(function*() {
    const { guest, isRunning, machines } = yield* make({ programs: [[A]] })
    yield* guest.client(slowA)
    const running = yield* guest.start(guest.vm)
    yield* actors<VirtualMachineError, Scope.Scope>({
      owner: Effect.gen(function*() {
        yield* step("the VM is closed")
        yield* guest.close
        yield* step("another VM is created")
        const other = yield* machines.create({ memoryBytes: 4096 })
        yield* step("it is started")
        yield* other.start
      }),
      other: Effect.gen(function*() {
        yield* step("the old handle pauses")
        yield* Effect.ignore(running.pause)
      })
    })
    if (!isRunning()) guest.ledger.violate("law 9: a handle of a VM that was closed paused another VM")
    yield* guest.finish
  })
)

export const life = [
  pause,
  pauseLate,
  pauseAndDestroy,
  pauseTimesOut,
  drains,
  reset,
  resetByHand,
  resetAndDestroy,
  destroy,
  destroyAndRelease,
  destroyInHandler,
  destroyAndPause,
  staleHandle
]
