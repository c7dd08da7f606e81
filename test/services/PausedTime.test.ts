/** Law 10 for clocks: what holds requests back, a pause or a drain, takes no guest time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { Resume } from "../../src/services/Hypervisor.ts"
import type { IoDispatcherError } from "../../src/services/IoDispatcher.ts"
import { Machine } from "../../src/services/Machine.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import type { VirtualMachineError } from "../../src/services/VirtualMachineError.ts"
import type { RunningVm } from "../../src/services/Vm.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import { onSimulated, turns, until } from "../support/machines.ts"
import { buildEmulated } from "../testing/hypervisors.ts"

const SLOW = 0x100
const CLOCK = 0x104
const INTERRUPTED_REQUESTS = [5, 11, 20]

const program = Result.getOrThrow(GuestProgram.assemble([{
  _tag: "Loop",
  times: 20,
  body: [{ _tag: "PortIn", port: SLOW, size: 4 }, { _tag: "PortIn", port: CLOCK, size: 4 }, { _tag: "Keep" }]
}]))

const pauseAndResume = (running: RunningVm) => Effect.flatMap(running.pause, (paused) => paused.resume)

/** Holds back for far longer than a pause does. */
const drainAndProceed = (running: RunningVm) =>
  running.io.drain().pipe(Effect.andThen(turns(100)), Effect.andThen(running.io.proceed), Effect.as(running))

/** What the guest read from a clock, when this was begun from inside some of its requests. */
const times = (
  disturb:
    | ((running: RunningVm) => Effect.Effect<RunningVm, VirtualMachineError | IoDispatcherError, Resume>)
    | undefined
) =>
  Effect.scoped(Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: program.plan.memoryBytes })
    let asked = 0
    let onRequest: () => void = () => undefined
    yield* vm.attach(Effect.gen(function*() {
      const machine = yield* Machine
      // Something that would use the time, if any passed.
      yield* machine.fork(Effect.forever(Effect.sleep("50 micros")))
      yield* machine.io.register({
        name: "clock",
        ranges: [IoRange.ports(SLOW, CLOCK + 3)],
        handle: (request) => {
          asked++
          onRequest()
          if ("port" in request && request.port === SLOW) return Effect.as(Effect.sleep("5 micros"), 1)
          return Effect.succeed(Number(machine.time.clock.monotonicTimeNanosUnsafe()))
        }
      })
    }))
    yield* vm.load(program.plan)
    let running = yield* vm.start
    const run = Effect.runForkWith(yield* Effect.context<Resume>())
    for (const request of disturb === undefined ? [] : INTERRUPTED_REQUESTS) {
      let disturbing: Fiber.Fiber<RunningVm, VirtualMachineError | IoDispatcherError> | undefined
      onRequest = () => {
        if (asked === request) disturbing = run(disturb!(running))
      }
      yield* until(() => disturbing !== undefined)
      running = yield* Fiber.join(disturbing!)
    }
    yield* running.ended
    yield* running.pause
    return [...new Uint32Array((yield* GuestProgram.results(program, vm.memory)).slice().buffer)]
  }))

const sameTimes = Effect.gen(function*() {
  const undisturbed = yield* times(undefined)
  assert.deepStrictEqual(yield* times(pauseAndResume), undisturbed)
  assert.deepStrictEqual(yield* times(drainAndProceed), undisturbed)
})

describe("guest time stands still while requests are held back", () => {
  it.effect("on Simulated", () => sameTimes.pipe(onSimulated()))

  it.effect("on Simulated that polls for completion", () => sameTimes.pipe(onSimulated({ completion: "Polling" })))

  it.effect("on Emulated with virtual time", () =>
    Effect.gen(function*() {
      yield* Effect.provide(sameTimes, yield* buildEmulated)
    }))
})
