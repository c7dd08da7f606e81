/** A hypervisor on which all that can be read can be executed keeps the law of memory if its profile says so. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import { HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { MemoryAccess, MemoryRegionBatch, MemoryRegionOp } from "../../../src/domain/abi/MemoryRegionBatch.ts"
import type { HypervisorProfile } from "../../../src/domain/HypervisorProfile.ts"
import { readExecute, readWriteExecute } from "../../../src/domain/MemoryRegion.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import { HypercallGate } from "../../../src/services/HypercallGate.ts"
import { ServiceMemory } from "../../../src/services/ServiceMemory.ts"
import * as Generator from "../../../src/testing/Generator.ts"
import * as Law from "../../../src/testing/Law.ts"
import { cases } from "../../../src/testing/laws/MappingCase.ts"
import { memoryMap } from "../../../src/testing/laws/MemoryMap.ts"
import { profile } from "../../../src/testing/TestMachine.ts"

type Rights = Pick<HypervisorProfile, "accessRights">

/** Lets a guest execute whatever it may read. */
const executesAll = (rights: Rights) =>
  Layer.effectContext(Effect.map(Layer.build(Layer.fresh(Simulated.layer)), (context) => {
    const gate = Context.get(context, HypercallGate)
    const memory = Context.get(context, ServiceMemory)
    const attributesAt = MemoryRegionOp.offsets.attr
    const addRight = (at: number) => {
      const word = new Uint8Array(4)
      Result.getOrThrow(memory.read(at + attributesAt, word))
      if ((word[0]! & MemoryAccess.Read) !== 0) word[0]! |= MemoryAccess.Execute
      Result.getOrThrow(memory.write(at + attributesAt, word))
    }
    return Context.add(
      context,
      HypercallGate,
      HypercallGate.of({
        profile: { ...gate.profile, ...rights },
        notifyFinish: gate.notifyFinish,
        call: (id, param1, param2) =>
          Effect.suspend(() => {
            if (id === HypercallId.SetMemoryRegions) {
              const bytes = new Uint8Array(MemoryRegionBatch.size)
              Result.getOrThrow(memory.read(Number(param1), bytes))
              const { regionsGpa, regionsNum } = Result.getOrThrow(MemoryRegionBatch.decode(bytes))
              for (let index = 0; index < regionsNum; index++) {
                addRight(Number(regionsGpa) + index * MemoryRegionOp.size)
              }
            }
            return gate.call(id, param1, param2)
          })
      })
    )
  }))

const tried = (rights: Rights) => Law.check(memoryMap, "executing", executesAll(rights), { runs: 200 })

describe("the profile's access rights", () => {
  it.live("are those that the law of memory tries", () =>
    Effect.gen(function*() {
      const outcome = yield* tried({})
      assert.strictEqual(outcome._tag, "Broken")
      if (outcome._tag === "Broken") assert.include(outcome.problem, "could execute the page")
      assert.strictEqual((yield* tried({ accessRights: [readWriteExecute, readExecute] }))._tag, "Held")
    }))

  it.effect("are the only ones that it maps pages with; without them it tries all", () =>
    Effect.gen(function*() {
      const mapped = (rights: Rights) =>
        Effect.map(Generator.sample(cases({ ...profile, ...rights }), { count: 100, seed: 1 }), (samples) =>
          new Set(samples.flatMap(({ steps }) =>
            steps.flatMap((step) =>
              step._tag === "Batch" ? step.operations.map((each) => each.rights) : []
            )
          )))
      assert.sameMembers([...yield* mapped({ accessRights: [readWriteExecute, readExecute] })], [7, 5])
      assert.sameMembers([...yield* mapped({})], [7, 3, 5, 1, 4])
    }))
})
