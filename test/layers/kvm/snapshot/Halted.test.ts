/** A vCPU that has halted for good goes on where a snapshot of it was taken. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ports } from "../../../../src/domain/IoRange.ts"
import * as VcpuRegisters from "../../../../src/domain/VcpuRegisters.ts"
import { VcpuSnapshots } from "../../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import * as g from "../../../support/guest.ts"
import { until } from "../../../support/machines.ts"
import { onKvm, problem, skipped } from "../capabilities/guests.ts"

const HOLD = 0x100
const TOLD = 0x110
const CODE = 0x1000

/** Reads a port until it is 0, tells another, and halts. */
const waits = g.code(g.inp(HOLD), [0x84, 0xc0, 0x75, 256 - g.inp(HOLD).length - 4], g.out(TOLD, 1), g.stop)
const polls = g.code(g.forever(g.inp(HOLD)))

/** Writes a snapshot of a vCPU that is about to tell to one that was given nothing else. */
const isStarted = (placement: "Inline" | "Worker", interruptController: "Kernel" | "None") =>
  onKvm({ placement, interruptController })(Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const snapshots = yield* VcpuSnapshots
    let told = 0
    const make = Effect.gen(function*() {
      const vm = yield* machines.create({ memoryBytes: 0x2_0000, vcpus: 2 })
      yield* vm.io.register({
        name: "hold",
        ranges: [ports(HOLD, TOLD)],
        handle: (request) =>
          Effect.sync(() => {
            if (request._tag === "PortRead") return 0
            told++
            return undefined
          })
      })
      yield* vm.memory.write(CODE, waits)
      return vm
    })
    const first = yield* make
    yield* first.setRegisters(1, VcpuRegisters.flat32({ entry: CODE, stack: 0x8000 }))
    const snapshot = yield* snapshots.read(first.id, 1)
    const second = yield* make
    yield* second.memory.write(2 * CODE, polls)
    yield* second.setRegisters(0, VcpuRegisters.flat32({ entry: 2 * CODE, stack: 0x8000 }))
    yield* snapshots.write(second.id, 1, { ...snapshot, activity: "Running" })
    yield* second.start
    yield* until(() => told > 0)
    assert.strictEqual(told, 1)
  }))

describe.skipIf(problem !== undefined)(`a vCPU that has halted${skipped}`, () => {
  for (const placement of ["Inline", "Worker"] as const) {
    for (const interruptController of ["Kernel", "None"] as const) {
      it.live(`goes on from a snapshot, ${placement}, interrupt controller ${interruptController}`, () =>
        onKvm({ placement, interruptController })(Effect.gen(function*() {
          const machines = yield* VirtualMachine.VirtualMachine
          const snapshots = yield* VcpuSnapshots
          const vm = yield* machines.create({ memoryBytes: 0x2_0000, vcpus: 2 })
          let asked = 0
          let told = 0
          let hold = 1
          yield* vm.io.register({
            name: "hold",
            ranges: [ports(HOLD, TOLD)],
            handle: (request) =>
              Effect.sync(() => {
                if (request._tag === "PortRead") {
                  if (request.vcpu === 1) asked++
                  return hold
                }
                told++
                return undefined
              })
          })
          for (const [vcpu, bytes] of [polls, waits].entries()) {
            const entry = CODE * (vcpu + 1)
            yield* vm.memory.write(entry, bytes)
            yield* vm.setRegisters(vcpu, VcpuRegisters.flat32({ entry, stack: 0x8000 }))
          }
          const started = yield* vm.start
          yield* until(() => asked > 1)
          let paused = yield* started.pause
          let snapshot = yield* Effect.result(snapshots.read(vm.id, 1))
          while (snapshot._tag === "Failure") {
            const again = yield* paused.resume
            yield* Effect.yieldNow
            paused = yield* again.pause
            snapshot = yield* Effect.result(snapshots.read(vm.id, 1))
          }
          hold = 0
          const resumed = yield* paused.resume
          yield* until(() => told === 1)
          // So that it has halted, too.
          yield* Effect.sleep(10)
          const later = yield* resumed.pause
          yield* snapshots.write(vm.id, 1, snapshot.success)
          yield* later.resume
          yield* until(() => told === 2)
          assert.strictEqual(told, 2)
        })))

      it.live(`is started by its state alone, ${placement}, interrupt controller ${interruptController}`, () =>
        isStarted(placement, interruptController))
    }
  }
})
