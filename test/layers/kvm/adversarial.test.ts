/** Guests that do what no guest should: they end with a reason or go on, and nothing else suffers. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { vi } from "vitest"
import * as Kvm from "../../../src/layers/Kvm.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import { onKvm, problem, skipped } from "./capabilities/guests.ts"
import { adversaries, memoryOf, RAM_BYTES, registersOf } from "./support/adversaries.ts"
import { ordeal } from "./support/ordeal.ts"
import { newWatch } from "./support/WatchedLibc.ts"

vi.mock("../../../src/layers/native/Libc.ts", async (original) => {
  const actual = await original<typeof import("../../../src/layers/native/Libc.ts")>()
  const { watched } = await import("./support/WatchedLibc.ts")
  return { ...actual, loadLibc: watched(actual.loadLibc) }
})

const TURNS = 5

for (const placement of ["Inline", "Worker"] as const) {
  for (const interruptController of ["Kernel", "None"] as const) {
    describe.skipIf(problem !== undefined)(
      `adversarial guests, ${placement}, interrupt controller ${interruptController}${skipped}`,
      () => {
        const machines = VirtualMachine.layer.pipe(
          Layer.provideMerge(Kvm.layerWith({ placement, interruptController }))
        )
        layer(machines, { excludeTestServices: true })((shared) => {
          for (const adversary of adversaries) {
            shared.effect(`one that ${adversary.name} (${adversary.mode})`, () =>
              Effect.gen(function*() {
                const { fate, problems } = yield* ordeal(adversary, { turns: TURNS })
                assert.deepStrictEqual(problems, [])
                assert.include(adversary.fates, fate)
              }))
          }
        })
      }
    )
  }
}

describe.skipIf(problem !== undefined)(`a guest that spins with interrupts off${skipped}`, () => {
  const spinning = adversaries.filter(({ name }) => name.startsWith("spins"))

  for (const placement of ["Inline", "Worker"] as const) {
    it.live(`is paused by few kicks of each vCPU, ${placement}`, () =>
      Effect.gen(function*() {
        const watch = newWatch()
        yield* onKvm({ placement })(Effect.gen(function*() {
          for (const adversary of spinning) {
            const { mode, vcpus = 1 } = adversary
            const machines = yield* VirtualMachine.VirtualMachine
            const vm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus })
            for (const [address, bytes] of memoryOf(adversary)) yield* vm.memory.write(address, bytes)
            for (let vcpu = 0; vcpu < vcpus; vcpu++) yield* vm.setRegisters(vcpu, registersOf(mode))
            let running = yield* vm.start
            for (let pauses = 0; pauses < 20; pauses++) {
              yield* Effect.sleep(2)
              watch.calls.length = 0
              const paused = yield* running.pauseWithin("1 minute")
              const kicks = watch.calls.filter((call) => call === "tgkill" || call === "KVM_RUN").length
              // One to stop it, and one that was under way already.
              assert.isAtMost(kicks, 2 * vcpus, watch.calls.join())
              running = yield* paused.resume
            }
          }
        }))
      }))
  }
})
