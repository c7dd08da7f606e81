/** The same seeded guest programs on any hypervisor, and what each came to, as data that can be compared. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { createHash } from "node:crypto"
import * as MmioScratch from "../../src/layers/devices/MmioScratch.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as Trace from "../../src/testing/Trace.ts"

/** `requests` counts the trace's entries; `trace` and `memory` are hashes. */
export interface Run {
  readonly end: string
  readonly results: string
  readonly requests: number
  readonly trace: string
  readonly memory: string
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const runOne = (operations: ReadonlyArray<GuestProgram.Operation>) =>
  Effect.scoped(Effect.gen(function*() {
    const program = Result.getOrThrow(GuestProgram.assemble(operations))
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: program.plan.memoryBytes })
    yield* vm.attach(MmioScratch.make())
    const recording = yield* Trace.record(vm)
    yield* GuestRun.load(vm, { vcpus: [program], plan: program.plan })
    const running = yield* vm.start
    const end = yield* running.ended
    yield* running.pause
    const trace = yield* recording.trace
    const memory = yield* vm.memory.read(0, vm.memoryBytes)
    const run: Run = {
      end: end._tag,
      results: hex(yield* GuestProgram.results(program, vm.memory)),
      requests: trace.entries.length,
      trace: trace.hash,
      memory: createHash("sha256").update(memory).digest("hex")
    }
    return run
  }))

/** PCI aside: of the two accesses that one takes, the driver keeps the first to itself. */
const programs = (count: number, seed: number) =>
  Effect.gen(function*() {
    // Of one profile, or the programs would not be the same.
    const gate = Context.get(yield* Layer.build(Simulated.layer), HypercallGate)
    const one = Arbitraries.guestProgram({ profile: gate.profile, maxLength: 12, maxDepth: 1, pci: false })
    return yield* Generator.sample(one, { count, seed })
  }).pipe(Effect.scoped)

export const runAll = <R, E>(hypervisor: Layer.Layer<R | Hypervisor, E>, count: number, seed: number) =>
  Effect.flatMap(programs(count, seed), (all) => Effect.forEach(all, runOne)).pipe(
    Effect.provide(VirtualMachine.layer),
    Effect.provide(hypervisor)
  )
