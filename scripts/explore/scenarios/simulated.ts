/**
 * The same commands over the simulated hypervisor, whose vCPUs execute real instructions: what its guests read is what
 * they read when nobody disturbs them.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import { ports } from "../../../src/domain/IoRange.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import type { Resume } from "../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import type { CreatedVm, RunningVm } from "../../../src/services/Vm.ts"
import { actors, Exploration, step } from "../../../src/testing/Explorer.ts"
import * as GuestProgram from "../../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../../src/testing/GuestRun.ts"
import { A, B, type Scenario, scenario } from "./Scenario.ts"

const ALL_ONES = 0xffff_ffff

const reads = (...each: ReadonlyArray<number>): ReadonlyArray<GuestProgram.OperationInput> =>
  each.flatMap((port) => [{ _tag: "PortIn", port, size: 4 }, { _tag: "Keep" }] as const)

/** What each vCPU reads. */
const portsOf = [[A, B, A + 1], [B + 1, A + 2]]
const programs = Result.getOrThrow(GuestProgram.assembleAll(portsOf.map((each) => reads(...each))))

const answerOf = (port: number): number => port * 0x1_0001

interface Guest {
  readonly vm: CreatedVm
  /** Closes the VM's scope. */
  readonly close: Effect.Effect<void>
  /** Closes the scope of the client that has the ports from A on. */
  readonly releaseA: Effect.Effect<void>
  /** Checks that every vCPU has read the right values, or all-ones where that may be. */
  readonly check: (mayBeAllOnes: (port: number) => boolean) => Effect.Effect<void>
}

const undisturbed = () => false

const onSimulated = (
  name: string,
  about: string,
  program: (guest: Guest) => Effect.Effect<void, unknown, Scope.Scope | Resume>
): Scenario =>
  scenario(
    name,
    about,
    Effect.gen(function*() {
      const exploration = yield* Exploration
      const machines = yield* VirtualMachine.VirtualMachine
      const scope = yield* Scope.fork(yield* Effect.scope)
      const { memoryBytes } = programs.plan
      const vm = yield* machines.create({ memoryBytes, vcpus: portsOf.length }).pipe(Scope.provide(scope))
      let isClosed = false
      const client = (called: string, first: number) =>
        Effect.gen(function*() {
          const own = yield* Scope.fork(yield* Effect.scope)
          let isReleased = false
          yield* vm.io.register({
            name: called,
            ranges: [ports(first, first + 0xf)],
            handle: (request) =>
              Effect.gen(function*() {
                yield* step(`${called} answers vCPU ${request.vcpu}`)
                if (isReleased || isClosed) exploration.violate(`law 9: ${called} runs after its end`)
                return answerOf("port" in request ? request.port : 0)
              })
          }).pipe(Scope.provide(own))
          return Effect.andThen(
            Scope.close(own, Exit.void),
            Effect.sync(() => {
              isReleased = true
            })
          )
        })
      const releaseA = yield* client("A", A)
      yield* client("B", B)
      yield* GuestRun.load(vm, programs)
      yield* program({
        vm,
        releaseA,
        close: Effect.andThen(
          Scope.close(scope, Exit.void),
          Effect.sync(() => {
            isClosed = true
          })
        ),
        check: (mayBeAllOnes) =>
          Effect.gen(function*() {
            for (const [vcpu, each] of portsOf.entries()) {
              const bytes = yield* GuestProgram.results(programs.vcpus[vcpu]!, vm.memory)
              const words = new Uint32Array(bytes.slice().buffer)
              for (const [i, port] of each.entries()) {
                if (words[i] === answerOf(port) || (words[i] === ALL_ONES && mayBeAllOnes(port))) continue
                exploration.violate(`law 10: vCPU ${vcpu} read ${words[i]} from port ${port}`)
              }
            }
          }).pipe(Effect.orDie)
      })
    }).pipe(
      Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer)), { local: true })
    )
  )

const pauseAndResume = (running: RunningVm) =>
  Effect.gen(function*() {
    yield* step("the VM is paused")
    const paused = yield* running.pause
    yield* step("the VM is resumed")
    return yield* paused.resume
  })

const pause = onSimulated(
  "simulated pause",
  "two guests' accesses, while the VM is paused and resumed twice",
  ({ check, vm }) =>
    Effect.gen(function*() {
      const running = yield* vm.start
      yield* actors<unknown, Resume>({ controller: Effect.flatMap(pauseAndResume(running), pauseAndResume) })
      yield* running.ended
      yield* check(undisturbed)
    })
)

const reset = onSimulated(
  "simulated reset",
  "two guests' accesses, while the VM is paused, reset and started again",
  ({ check, vm }) =>
    Effect.gen(function*() {
      const running = yield* vm.start
      yield* step("the VM is paused")
      const again = yield* (yield* running.pause).reset
      yield* step("the VM is started again")
      yield* (yield* again.start).ended
      yield* check(undisturbed)
    })
)

const clientDestroy = onSimulated(
  "simulated client destroy",
  "two guests' accesses, while a client is released",
  ({ check, releaseA, vm }) =>
    Effect.gen(function*() {
      const running = yield* vm.start
      yield* actors({ controller: Effect.andThen(step("A is released"), releaseA) })
      yield* running.ended
      yield* check((port) => port < B)
    })
)

const destroy = onSimulated(
  "simulated VM destroy",
  "two guests' accesses, while the VM's scope is closed",
  ({ close, vm }) =>
    Effect.gen(function*() {
      const running = yield* vm.start
      yield* actors({ controller: Effect.andThen(step("the VM is closed"), close) })
      yield* running.ended
    })
)

export const simulated = [pause, reset, clientDestroy, destroy]
