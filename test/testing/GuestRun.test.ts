import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { Port } from "../../src/domain/Address.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"
import { MMIO, PORTS, probes } from "./probe.ts"

const on = (seed: number) =>
  Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layerWith({ seed }))), { local: true })
const simulated = on(1)

const assembleAll = (programs: ReadonlyArray<ReadonlyArray<GuestProgram.OperationInput>>) =>
  Result.getOrThrow(GuestProgram.assembleAll(programs))

const loop = (vcpu: number): ReadonlyArray<GuestProgram.OperationInput> => [
  {
    _tag: "Loop",
    times: 20,
    body: [{ _tag: "Work", rounds: 3 + vcpu }, { _tag: "PortOut", port: 0x90 + vcpu, size: 1 }]
  }
]

describe("GuestRun", () => {
  it.effect.prop("the same programs and seed give the same run, on several vCPUs too", [
    Arbitraries.guestPrograms(TestMachine.profile, { ports: PORTS, mmio: MMIO, maxLength: 6 })
  ], ([programs]) =>
    Effect.gen(function*() {
      const run = GuestRun.runAll(assembleAll(programs), probes)
      const first = yield* run.pipe(on(7))
      const second = yield* run.pipe(on(7))
      assert.deepStrictEqual(second, first)
    }), { arbitrary: { runs: 30 } })

  it.effect("another seed lets the vCPUs take turns in another way, and each does the same as before", () =>
    Effect.gen(function*() {
      const programs = assembleAll([loop(0), loop(1), loop(2)])
      const first = yield* GuestRun.runAll(programs, Effect.void).pipe(on(1))
      const second = yield* GuestRun.runAll(programs, Effect.void).pipe(on(2))
      assert.notStrictEqual(first.trace.hash, second.trace.hash)
      const of = (run: GuestRun.GuestRuns, vcpu: number) =>
        run.trace.entries.filter(({ request }) => request.vcpu === vcpu)
      for (const vcpu of [0, 1, 2]) assert.deepStrictEqual(of(second, vcpu), of(first, vcpu))
      assert.deepStrictEqual(second.vcpus, first.vcpus)
    }))

  it.effect("a run on one vCPU is a run on several of which there is one", () =>
    Effect.gen(function*() {
      const operations: ReadonlyArray<GuestProgram.Operation> = [
        { _tag: "PortIn", port: Port.make(0x60), size: 2 },
        { _tag: "Keep" }
      ]
      const one = yield* GuestRun.run(Result.getOrThrow(GuestProgram.assemble(operations)), probes).pipe(simulated)
      const { vcpus, ...rest } = yield* GuestRun.runAll(assembleAll([operations]), probes).pipe(simulated)
      assert.deepStrictEqual(one, { ...rest, ...vcpus[0]! })
    }))

  it.effect("programs that do not fit the VM are not loaded", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine.VirtualMachine
      const programs = assembleAll([loop(0), loop(1)])
      const small = yield* machines.create({ vcpus: 2, memoryBytes: 4096 })
      assert.strictEqual((yield* Effect.flip(GuestRun.load(small, programs))).reason._tag, "BadImage")
      const lonely = yield* machines.create({ vcpus: 1, memoryBytes: programs.plan.memoryBytes })
      assert.strictEqual((yield* Effect.flip(GuestRun.load(lonely, programs))).reason._tag, "BadOption")
      const memory = yield* lonely.memory.read(0, lonely.memoryBytes)
      assert.isTrue(memory.every((byte) => byte === 0))
    }).pipe(Effect.scoped, simulated))
})
