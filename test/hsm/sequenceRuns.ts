/** The same seeded hypercall sequences on any hypervisor, and what each call gave, as data that can be compared. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { MemoryAccess, MemoryRegionOpCode, MemoryType } from "../../src/domain/abi/MemoryRegionBatch.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as HypercallSequence from "../../src/testing/HypercallSequence.ts"
import { RAM_BYTES } from "../../src/testing/sequence/Call.ts"
import * as Performer from "../../src/testing/sequence/Performer.ts"
import { sequenceDifferences } from "./sequenceDifferences.ts"

/**
 * What one call gave.
 *
 * - `vcpus`: of the VM that it made.
 * - `problem`: what is wrong with its answer by itself.
 * - `slots`: the states of the 16 slots of each page that a call named so far, by the page's VM.
 */
export interface Step {
  readonly result: number
  readonly vcpus?: number
  readonly problem?: string
  readonly slots: Readonly<Record<number, ReadonlyArray<number>>>
}

/** VMs at once: few, so that sequences run out of them. */
export const HYPERVISOR: Simulated.SimulatedOptions = { maxVms: 3, configuredVcpus: 2 }

const runOne = (calls: HypercallSequence.HypercallSequence) =>
  Effect.scoped(Effect.gen(function*() {
    const performer = yield* Performer.make
    const named = new Set<number>()
    return yield* Effect.forEach(calls, (call) =>
      Effect.map(performer.perform(call), (outcome): Step => {
        if (call._tag === "SetPage" || call._tag === "WriteSlot") named.add(call.vm)
        return { ...outcome, slots: Object.fromEntries([...named].map((vm) => [vm, performer.slots(vm)])) }
      }))
  }))

// Random batches seldom give a VM memory.
const WITH_RAM: HypercallSequence.HypercallSequence = [
  { _tag: "Create", affinity: 3n, structure: "Memory" },
  {
    _tag: "SetRegions",
    vm: 0,
    operations: [{
      type: MemoryRegionOpCode.Add,
      attributes: MemoryAccess.All | MemoryType.WriteBack,
      guest: 0x10_0000n,
      service: "Own",
      size: RAM_BYTES
    }],
    structure: "Memory"
  }
]

/**
 * The examples of the differences, and then random ones, of which every second begins with a VM that has RAM. They are
 * made for Simulated on both sides, or they would not be the same; none of the random ones runs a VM on.
 */
export const sequences = (count: number, seed: number) =>
  Effect.gen(function*() {
    const hypervisor = yield* Layer.build(Simulated.layerWith(HYPERVISOR))
    const declared = { ...HypercallSequence.declared(hypervisor), resumes: false }
    const random = yield* Generator.sample(HypercallSequence.sequences(declared), { count, seed })
    return [
      ...sequenceDifferences.map(({ example }) => example),
      ...random.map((calls, index) => index % 2 === 0 ? calls : [...WITH_RAM, ...calls])
    ]
  }).pipe(Effect.scoped)

/** What each call of each sequence gives. */
export const runAll = <R, E>(
  hypervisor: Layer.Layer<R | Hypervisor, E>,
  all: ReadonlyArray<HypercallSequence.HypercallSequence>
) => Effect.provide(Effect.forEach(all, runOne), hypervisor)

/** What the rules are told of a hypervisor. */
export const abilitiesOf = <R, E>(hypervisor: Layer.Layer<R | Hypervisor, E>) =>
  Effect.provide(HypercallSequence.learn, hypervisor)
