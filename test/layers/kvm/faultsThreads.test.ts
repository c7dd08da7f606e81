/** The thread of a vCPU dies: its VM ends with a reason, and no other does. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Scope } from "effect"
import type { Worker } from "node:worker_threads"
import { until } from "../../support/machines.ts"
import { onKvm, problem, skipped } from "./capabilities/guests.ts"
import * as CountingGuest from "./support/CountingGuest.ts"
import { differences, holdings } from "./support/resources.ts"

/** The threads that are started from now on. */
const threads: Effect.Effect<ReadonlyArray<Worker>, never, Scope.Scope> = Effect.gen(function*() {
  const started: Array<Worker> = []
  const note = (worker: Worker) => started.push(worker)
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("worker", note)),
    () => Effect.sync(() => process.off("worker", note))
  )
  return started
})

const kill = (worker: Worker) => Effect.promise(() => worker.terminate())

const onWorkers = onKvm({ placement: "Worker" })

describe.skipIf(problem !== undefined)(`a vCPU's thread that dies${skipped}`, () => {
  it.live("takes its VM down with a reason, and nothing else", () =>
    Effect.gen(function*() {
      yield* onWorkers(Effect.void)
      const before = holdings()
      yield* onWorkers(Effect.gen(function*() {
        const started = yield* threads
        const other = yield* CountingGuest.make(2)
        const otherRunning = yield* other.vm.start
        yield* until(() => other.device.isUnderLoad)
        const scope = yield* Scope.make()
        const victim = yield* Scope.provide(CountingGuest.make(2), scope)
        const running = yield* victim.vm.start
        yield* until(() => victim.device.isUnderLoad)
        yield* kill(started[3]!)
        const end = yield* running.ended
        assert.strictEqual(end._tag, "Fault")
        assert.match(end._tag === "Fault" ? end.message : "", /the thread of vCPU \d ended/)
        yield* running.pause
        yield* Scope.close(scope, yield* Effect.exit(Effect.void))

        // The thread that is left is used again, and another is started.
        const next = yield* CountingGuest.make(2)
        const nextRunning = yield* next.vm.start
        yield* until(() => next.device.isUnderLoad)
        for (
          const { device, running: each, vm } of [{ ...other, running: otherRunning }, {
            ...next,
            running: nextRunning
          }]
        ) {
          device.isEnding = true
          assert.strictEqual((yield* each.ended)._tag, "Halted")
          assert.deepStrictEqual(yield* CountingGuest.disagreements(vm, device), [])
        }
        assert.strictEqual(started.length, 5)
      }))
      assert.deepStrictEqual(differences(before, holdings()), [])
    }))

  it.live("while its guest makes no exit", () =>
    onWorkers(Effect.gen(function*() {
      const started = yield* threads
      const { device, vm } = yield* CountingGuest.make(1)
      // JMP to itself, from the next round on.
      const running = yield* vm.start
      yield* until(() => device.isUnderLoad)
      yield* vm.memory.write(CountingGuest.CODE, Uint8Array.of(0xeb, 0xfe))
      yield* Effect.sleep(5)
      yield* kill(started[0]!)
      assert.strictEqual((yield* running.ended)._tag, "Fault")
    })))

  it.live("before it is ready", () =>
    onWorkers(Effect.gen(function*() {
      const started = yield* threads
      const { vm } = yield* CountingGuest.make(2)
      const running = yield* vm.start
      yield* until(() => started.length === 2)
      yield* kill(started[1]!)
      assert.strictEqual((yield* running.ended)._tag, "Fault")
    })))

  it.live("while its VM is paused, which is told when it is to go on", () =>
    onWorkers(Effect.gen(function*() {
      const started = yield* threads
      const { device, vm } = yield* CountingGuest.make(2)
      const paused = yield* Effect.flatMap(
        Effect.tap(vm.start, until(() => device.isUnderLoad)),
        ({ pause }) => pause
      )
      yield* kill(started[0]!)
      const running = yield* paused.resume
      assert.strictEqual((yield* running.ended)._tag, "Fault")
    })))

  it.live("while its VM is being paused", () =>
    onWorkers(Effect.gen(function*() {
      const started = yield* threads
      const { device, vm } = yield* CountingGuest.make(2)
      const running = yield* Effect.tap(vm.start, until(() => device.isUnderLoad))
      const [paused] = yield* Effect.all([running.pause, kill(started[1]!)], { concurrency: "unbounded" })
      const resumed = yield* paused.resume
      assert.strictEqual((yield* resumed.ended)._tag, "Fault")
    })))

  it.live("when it is not needed, and another takes its place", () =>
    onWorkers(Effect.gen(function*() {
      const started = yield* threads
      const once = Effect.scoped(Effect.gen(function*() {
        const { device, vm } = yield* CountingGuest.make(1)
        const running = yield* Effect.tap(vm.start, until(() => device.isUnderLoad))
        device.isEnding = true
        assert.strictEqual((yield* running.ended)._tag, "Halted")
      }))
      yield* once
      yield* kill(started[0]!)
      yield* once
      assert.strictEqual(started.length, 2)
    })))
})
