/** Adversaries on top of each other, over each hypervisor: what each of them spares, all of them together spare. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { Hypervisor, VcpuState } from "../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as DyingClients from "../../src/testing/DyingClients.ts"
import * as FaultyGate from "../../src/testing/FaultyGate.ts"
import * as FaultyUpcalls from "../../src/testing/FaultyUpcalls.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as HostilePage from "../../src/testing/HostilePage.ts"
import { Asked, device, guest } from "../support/adversaries.ts"

const observe = Effect.gen(function*() {
  const asked = new Asked()
  // Needs the registers, and so a capability of the hypervisor below.
  const { end, registers, results } = yield* GuestRun.run(guest, device(asked))
  return { end: end._tag, results: [...results], rax: registers.gprs.rax, asked: asked.byVcpu[0] }
})

const suite = <E>(name: string, hypervisor: Layer.Layer<Hypervisor | VcpuState, E>) => {
  const machines = VirtualMachine.layer.pipe(Layer.provideMerge(hypervisor))

  const besieged = (seed: number) =>
    VirtualMachine.layer.pipe(
      Layer.provideMerge(DyingClients.layer({ plan: [] })),
      Layer.provideMerge(FaultyGate.layer({ seed, rate: 0.5, faults: { Late: 1 } })),
      Layer.provideMerge(FaultyUpcalls.layer({ mode: "Lossless", seed })),
      Layer.provideMerge(HostilePage.layer({ mode: "Survivable", seed })),
      Layer.provideMerge(hypervisor)
    )

  describe(name, () => {
    it.effect("runs a guest to the same end under all adversaries that spare it", () =>
      Effect.gen(function*() {
        const expected = yield* Effect.provide(observe, machines, { local: true })
        for (let seed = 1; seed <= 8; seed++) {
          yield* Effect.gen(function*() {
            assert.deepStrictEqual(yield* observe, expected, `seed ${seed}`)
            const all = yield* HostilePage.Adversaries
            const counts: Record<string, number> = {}
            for (const adversary of all) counts[adversary.name] = yield* adversary.count
            assert.sameMembers(Object.keys(counts), ["HostilePage", "FaultyUpcalls", "FaultyGate", "DyingClients"])
            assert.strictEqual(counts["DyingClients"], 0)
            assert.isTrue(
              ["HostilePage", "FaultyUpcalls", "FaultyGate"].every((each) => counts[each]! > 0),
              JSON.stringify(counts)
            )
          }).pipe(Effect.provide(besieged(seed), { local: true }))
        }
      }))
  })
}

suite("Simulated", Simulated.layer)
suite("Simulated, polling", Simulated.layerWith({ completion: "Polling" }))
suite("Emulated", Emulated.layerWith({ clock: "Virtual" }))
