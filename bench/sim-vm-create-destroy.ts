/**
 * A VM made and unmade: the whole life of a scope, with 1 MiB of RAM, its dispatcher and its handles. The peer is the
 * bare hypercalls for the same VM: page, CREATE, SET_IOREQ_BUFFER, RAM, SET_MEMORY_REGIONS, PAUSE, DESTROY.
 *
 * In the same run: by how much the heap grows with each VM that was unmade, over 10,000 of them, after garbage
 * collection. It has to be nothing.
 */
import * as Effect from "effect/Effect"
import { GuestAddress } from "../src/domain/Address.ts"
import * as MemoryRegion from "../src/domain/MemoryRegion.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import * as Hypercalls from "../src/services/Hypercalls.ts"
import { ServiceMemory } from "../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { compare, type Figure, measurement, type Sampler, stopwatch } from "./harness.ts"

const MEMORY_BYTES = 1 << 20
const PAGE_BYTES = 4096
const LIVES = 10_000
const LIVES_BEFORE = 2000

const repeat = <A, E, R>(life: Effect.Effect<A, E, R>, times: number) =>
  Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* life
  })

const mappingAtZero = {
  guestAddress: GuestAddress.make(0),
  bytes: MEMORY_BYTES,
  rights: MemoryRegion.readWriteExecute,
  cacheType: "WriteBack"
} as const

const bareLife = Effect.gen(function*() {
  const hypercalls = yield* Hypercalls.Hypercalls
  const memory = yield* ServiceMemory
  const page = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } })
  const { vmId } = yield* hypercalls.createVm({ cpuAffinity: 1n })
  yield* hypercalls.setIoRequestBuffer(vmId, page.address)
  const ram = yield* memory.allocate({ bytes: MEMORY_BYTES, purpose: { _tag: "GuestRam", vmId } })
  const mapping = { ...mappingAtZero, serviceAddress: ram.address }
  yield* hypercalls.setMemoryRegions(vmId, [MemoryRegion.toMapOp(mapping)])
  yield* hypercalls.pauseVm(vmId)
  yield* hypercalls.destroyVm(vmId)
}).pipe(Effect.scoped)

const heapBytes = (): number => {
  globalThis.gc?.()
  globalThis.gc?.()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

export const figure: Figure = {
  metric: "sim.vm_create_destroy_us",
  unit: "us",
  aim: { of: "value", atMost: 100 },
  flags: ["--expose-gc"],
  run: () =>
    Effect.gen(function*() {
      const context = yield* Effect.context<
        Hypercalls.Hypercalls | ServiceMemory | VirtualMachine.VirtualMachine
      >()
      const machines = yield* VirtualMachine.VirtualMachine
      const life = Effect.scoped(machines.create({ memoryBytes: MEMORY_BYTES }))
      const sampler = <A, E>(
        each: Effect.Effect<A, E, Hypercalls.Hypercalls | ServiceMemory>
      ): Sampler =>
      async (iterations) => {
        const elapsed = stopwatch()
        await Effect.runPromiseWith(context)(repeat(each, iterations))
        return elapsed()
      }
      const result = yield* Effect.promise(() => compare(sampler(life), sampler(bareLife)))

      yield* repeat(life, LIVES_BEFORE)
      const before = heapBytes()
      yield* repeat(life, LIVES)
      const heapBytesPerVm = Math.round((heapBytes() - before) / LIVES)
      return measurement(result, "bare hypercalls for the same VM", { scale: 1e-3, details: { heapBytesPerVm } })
    }).pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer),
      Effect.provide(Hypercalls.layer),
      Effect.provide(Simulated.layer),
      Effect.runPromise
    )
}
