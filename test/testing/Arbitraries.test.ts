import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result, Schema } from "effect"
import type { HypervisorProfile } from "../../src/domain/HypervisorProfile.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import { IoRequest } from "../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"

const narrow: HypervisorProfile = {
  name: "narrow",
  maxVcpus: 2,
  maxRamBytes: 16_384,
  addressBits: 20,
  portWidths: [1, 2],
  mmioWidths: [1],
  mapping: "OneBlockFromZero",
  modes: ["Real"],
  startsAllVcpus: false
}
const { profile } = TestMachine
const simulated = VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer))

const allOf = (operation: GuestProgram.Operation): ReadonlyArray<GuestProgram.Operation> =>
  operation._tag === "Loop" ? operation.body.flatMap(allOf) : [operation]

describe("Arbitraries", () => {
  for (const each of [narrow, profile]) {
    it.prop(`requests are legal on the ${each.name} hypervisor`, [Arbitraries.ioRequest(each)], ([request]) => {
      assert.isTrue(Schema.is(IoRequest)(request))
      assert.isBelow(request.vcpu, each.maxVcpus)
      if ("address" in request) {
        assert.include(each.mmioWidths, request.size)
        assert.isAtMost(request.address + request.size, 2 ** each.addressBits)
      } else assert.include(each.portWidths, request.size)
      if ("value" in request) assert.isTrue(BigInt(request.value) < 1n << BigInt(8 * request.size))
    })

    it.prop(`registers can start a vCPU of the ${each.name} hypervisor`, [Arbitraries.vcpuRegisters(each)], (
      [registers]
    ) => {
      assert.isTrue(Result.isSuccess(VcpuRegisters.check(registers)))
      if (each === narrow) assert.strictEqual(registers.cr0 & 1n, 0n)
    })

    it.prop(`ranges are ranges of the ${each.name} hypervisor`, [Arbitraries.ioRange(each)], ([range]) => {
      assert.isTrue(Schema.is(IoRange.IoRange)(range))
      if (range._tag === "Mmio") assert.isBelow(range.end, 2 ** each.addressBits)
    })
  }

  it.effect.prop(
    "a machine takes every legal request",
    [Arbitraries.ioRequest(profile)],
    ([request]) =>
      Effect.gen(function*() {
        const machine = yield* TestMachine.make({ vcpus: 16 })
        yield* machine.submit(request)
      })
  )

  it.effect.prop("disjoint ranges are taken together, whoever owns them", [Arbitraries.disjointRanges(profile)], (
    [ranges]
  ) =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      for (const [index, range] of ranges.entries()) {
        yield* machine.attach(
          machine.vm.io.register({ name: `client ${index}`, ranges: [range], handle: () => Effect.void })
        )
      }
    }))

  it.effect("VM options are such that the hypervisor creates the VM", () =>
    Effect.gen(function*() {
      const gate = yield* HypercallGate
      const machines = yield* VirtualMachine.VirtualMachine
      const options = Arbitraries.vmOptions(gate.profile, { maxMemoryBytes: 65_536 })
      const samples = yield* Generator.sample(options, { count: 100, seed: 1 })
      for (const sample of samples) {
        const vm = yield* machines.create(sample).pipe(Effect.scoped)
        assert.strictEqual(vm.vcpus, sample.vcpus)
      }
    }).pipe(Effect.provide(simulated)))

  it.effect.prop(
    "images are loaded as they are",
    [Arbitraries.imagePlan({ memoryBytes: 8192 })],
    ([plan]) =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const vm = yield* machines.create({ memoryBytes: 8192 })
        yield* vm.load(plan)
        const [segment] = plan.segments
        assert.deepStrictEqual(yield* vm.memory.read(segment!.address, segment!.bytes.length), segment!.bytes)
      }).pipe(Effect.scoped, Effect.provide(simulated, { local: true }))
  )

  it.prop("bytes keep to their length", [Arbitraries.bytes({ minBytes: 3, maxBytes: 5 })], ([bytes]) => {
    assert.isTrue(bytes.length >= 3 && bytes.length <= 5)
  })

  it.prop("programs can be assembled", [Arbitraries.guestProgram()], ([operations]) => {
    assert.isTrue(Result.isSuccess(GuestProgram.assemble(operations)))
  })

  it.prop("programs for several vCPUs keep to the profile, and one vCPU alone makes PCI accesses", [
    Generator.elementOf([narrow, { ...profile, portWidths: [1, 4] as const, mmioWidths: [2, 8] as const }]).pipe(
      Generator.flatMap((each) =>
        Generator.map(
          Arbitraries.guestPrograms(each, { maxVcpus: 3 }),
          (programs) => ({ each, programs })
        )
      )
    )
  ], ([{ each, programs }]) => {
    assert.isTrue(programs.length >= 1 && programs.length <= (each.startsAllVcpus ? 3 : 1))
    const flat = programs.map((operations) => operations.flatMap(allOf))
    assert.isAtMost(flat.filter((list) => list.some(({ _tag }) => _tag.startsWith("Pci"))).length, 1)
    for (const operation of flat.flat()) {
      if (!("size" in operation)) continue
      const isMemory = operation._tag === "Load" || operation._tag === "Store"
      assert.include(isMemory ? each.mmioWidths : each.portWidths, operation.size)
      if (isMemory) assert.notStrictEqual(operation.size, 8)
    }
    assert.isTrue(Result.isSuccess(GuestProgram.assembleAll(programs)))
  })

  it.prop("64-bit programs take 8 bytes of memory at a time where the profile does", [
    Generator.elementOf([narrow, { ...profile, mmioWidths: [4, 8] as const }]).pipe(
      Generator.flatMap((each) =>
        Generator.map(Arbitraries.guestPrograms(each, { mode: "Long64" }), (programs) => ({ each, programs }))
      )
    )
  ], ([{ each, programs }]) => {
    for (const operation of programs.flat().flatMap(allOf)) {
      if (operation._tag === "Load" || operation._tag === "Store") assert.include(each.mmioWidths, operation.size)
    }
    assert.isTrue(Result.isSuccess(GuestProgram.assembleAll(programs, { mode: "Long64" })))
  })

  it.effect("samples are the same for the same seed", () =>
    Effect.gen(function*() {
      const draw = Generator.sample(Arbitraries.ioRequest(profile), { count: 20, seed: 7 })
      assert.deepStrictEqual(yield* draw, yield* draw)
    }))
})
