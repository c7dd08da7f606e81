/** Laws 17 to 19 on hypervisors that break them: what is found, and how small it becomes. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import * as Law from "../../src/testing/Law.ts"
import { hypercallSequences } from "../../src/testing/laws/HypercallSequences.ts"
import { memoryMap } from "../../src/testing/laws/MemoryMap.ts"
import { structureCodecs } from "../../src/testing/laws/StructureCodecs.ts"

type Services = Hypervisor | Simulated.Capabilities

const changed = (change: (context: Context.Context<Services>) => Context.Context<Services>): Layer.Layer<Services> =>
  Layer.effectContext(Effect.map(Effect.context<Services>(), change)).pipe(Layer.provide(Layer.fresh(Simulated.layer)))

const withGate = (
  call: (id: number, param1: bigint, go: Effect.Effect<number>) => Effect.Effect<number>
): Layer.Layer<Services> =>
  changed((context) => {
    const gate = Context.get(context, HypercallGate)
    return Context.add(context, HypercallGate, {
      ...gate,
      call: (id, param1, param2) => call(id, param1, gate.call(id, param1, param2))
    })
  })

const withMemory = (change: (memory: ServiceMemory["Service"]) => Partial<ServiceMemory["Service"]>) =>
  changed((context) => {
    const memory = Context.get(context, ServiceMemory)
    return Context.add(context, ServiceMemory, { ...memory, ...change(memory) })
  })

/** The lines of the smallest case that breaks a law, or none. */
const broken = (law: Law.Law, hypervisor: Layer.Layer<Services>) =>
  Effect.map(
    Law.check(law, "with a planted bug", hypervisor, { runs: 300 }),
    (outcome) => outcome._tag === "Broken" ? outcome.smallest.split("\n") : []
  )

describe("a planted bug", () => {
  it.live("breaks no law that it does not touch", () =>
    Effect.gen(function*() {
      for (const law of [hypercallSequences, memoryMap, structureCodecs]) {
        assert.deepStrictEqual(yield* broken(law, withGate((_id, _param1, go) => go)), [])
      }
    }))

  it.live("in a hypercall breaks law 17: RESET_VM is accepted in any state", () =>
    Effect.map(
      broken(hypercallSequences, withGate((id, _param1, go) => id === HypercallId.ResetVm ? Effect.as(go, 0) : go)),
      (lines) => assert.deepStrictEqual(lines, ["1. RESET_VM VM 0"])
    ))

  it.live("in the memory map breaks law 18: a batch is accepted and not done", () =>
    Effect.gen(function*() {
      let batches = 0
      // The first batch of each VM is its RAM.
      const hypervisor = withGate((id, _param1, go) => {
        if (id === HypercallId.CreateVm) batches = 0
        return id === HypercallId.SetMemoryRegions && batches++ > 0 ? Effect.succeed(0) : go
      })
      const lines = yield* broken(memoryMap, hypervisor)
      assert.isTrue(lines.length >= 1 && lines.length <= 3)
      assert.match(lines[0]!, /batch/)
    }))

  it.live("in Service VM memory breaks law 19: pages are given at any address", () =>
    Effect.gen(function*() {
      const lines = yield* broken(
        structureCodecs,
        withMemory((memory) => ({ page: (address) => memory.page(address - address % 4096) }))
      )
      assert.lengthOf(lines, 1)
    }))

  it.live("in Service VM memory breaks law 19: the last byte of a write is lost", () =>
    Effect.gen(function*() {
      const lines = yield* broken(
        structureCodecs,
        withMemory((memory) => ({
          write: (address, bytes) => bytes.length > 1 ? memory.write(address, bytes.slice(0, -1)) : Result.void
        }))
      )
      assert.lengthOf(lines, 1)
    }))
})
