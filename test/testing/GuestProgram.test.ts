import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { Port } from "../../src/domain/Address.ts"
import type { HypervisorProfile } from "../../src/domain/HypervisorProfile.ts"
import * as DebugExit from "../../src/layers/devices/DebugExit.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"
import type * as Trace from "../../src/testing/Trace.ts"
import { MMIO, PORTS, probes } from "./probe.ts"

const runOn = (operations: ReadonlyArray<GuestProgram.OperationInput>, devices = probes) =>
  Effect.suspend(() => GuestRun.run(Result.getOrThrow(GuestProgram.assemble(operations)), devices)).pipe(
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer)), { local: true })
  )

/** What a program does, by its meaning alone: the accesses in order, loops counted out. */
const meant = (operations: ReadonlyArray<GuestProgram.Operation>): Array<string> =>
  operations.flatMap((operation): Array<string> => {
    switch (operation._tag) {
      case "PortIn":
        return [`PortRead ${operation.port} ${operation.size}`]
      case "PortOut":
        return [`PortWrite ${operation.port} ${operation.size}`]
      case "StringIn":
        return Array.from({ length: operation.count }, () => `PortRead ${operation.port} ${operation.size}`)
      case "StringOut":
        return Array.from(
          { length: operation.bytes.length / operation.size },
          () => `PortWrite ${operation.port} ${operation.size}`
        )
      case "Load":
        return [`MmioRead ${operation.address} ${operation.size}`]
      case "Store":
        return [`MmioWrite ${operation.address} ${operation.size}`]
      case "PciRead":
      case "PciWrite": {
        const { bus, device, function: at, register, size } = operation
        return ["PortWrite 3320 4", `${operation._tag} ${bus}:${device}.${at} ${register} ${size}`]
      }
      case "Loop":
        return Array.from({ length: operation.times }, () => meant(operation.body)).flat()
      default:
        return []
    }
  })

/** What a vCPU made, in order. */
const made = (run: { readonly trace: Trace.Trace }, vcpu = 0): Array<string> =>
  run.trace.entries.flatMap(({ _tag, request }) => {
    if (_tag !== "Asked" || request.vcpu !== vcpu) return []
    if ("address" in request) return [`${request._tag} ${request.address} ${request.size}`]
    if ("port" in request) return [`${request._tag} ${request.port} ${request.size}`]
    return [
      `${request._tag} ${request.bus}:${request.device}.${request.function} ${request.register} ${request.size}`
    ]
  })

const runAllOn = (programs: ReadonlyArray<ReadonlyArray<GuestProgram.OperationInput>>, seed = 1) =>
  Effect.suspend(() => GuestRun.runAll(Result.getOrThrow(GuestProgram.assembleAll(programs)), probes)).pipe(
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layerWith({ seed }))), { local: true })
  )

const wordsOf = (results: Uint8Array): Array<number> => {
  const view = new DataView(results.buffer, results.byteOffset, results.length)
  return Array.from({ length: results.length / 4 }, (_, index) => view.getUint32(4 * index, true))
}

const reasonOf = (operations: ReadonlyArray<GuestProgram.OperationInput>, memoryBytes?: number) => {
  const assembled = GuestProgram.assemble(operations, { memoryBytes })
  return Result.isFailure(assembled) ? assembled.failure.reason._tag : undefined
}

describe("GuestProgram", () => {
  it.effect.prop("the guest makes the accesses that the operations mean, in order", [
    Arbitraries.guestProgram({ mmio: { start: 0xe000_0000, end: 0xe000_003f } })
  ], ([operations]) =>
    Effect.gen(function*() {
      const run = yield* runOn(operations)
      assert.strictEqual(run.end._tag, "Halted")
      assert.deepStrictEqual(made(run), meant(operations))
    }))

  it.effect.prop("the results are the answers, as the operations keep them", [
    Arbitraries.guestProgram({ maxDepth: 0 })
  ], ([operations]) =>
    Effect.gen(function*() {
      const kept = operations.flatMap((operation) =>
        operation._tag === "PortIn" || operation._tag === "StringIn"
          ? [operation, { _tag: "Keep" } as const]
          : []
      )
      const run = yield* runOn(kept)
      const answers = run.trace.entries.flatMap((entry) => entry._tag === "Answered" ? [Number(entry.answer!)] : [])
      const expected: Array<number> = []
      let accumulator = 0
      for (const operation of kept) {
        if (operation._tag === "PortIn") {
          const mask = operation.size === 4 ? 0xffff_ffff : 2 ** (8 * operation.size) - 1
          accumulator = (accumulator & ~mask | answers.shift()!) >>> 0
        } else if (operation._tag === "StringIn") {
          for (let i = 0; i < operation.count; i++) {
            const word = answers.shift()!
            for (let byte = 0; byte < operation.size; byte++) expected.push(word >>> 8 * byte & 0xff)
          }
          while (expected.length % 4 !== 0) expected.push(0)
        } else for (let byte = 0; byte < 4; byte++) expected.push(accumulator >>> 8 * byte & 0xff)
      }
      assert.deepStrictEqual([...run.results], expected)
    }))

  it.effect("each of several vCPUs makes its own accesses, in order, and keeps its own results", () =>
    Effect.gen(function*() {
      const programs = Arbitraries.guestPrograms(TestMachine.profile, { maxVcpus: 4, ports: PORTS, mmio: MMIO })
      let most = 0
      for (const [seed, lists] of (yield* Generator.sample(programs, { count: 60, seed: 3 })).entries()) {
        const numbered = lists.map((list, vcpu): ReadonlyArray<GuestProgram.Operation> => [
          ...list,
          { _tag: "PortOut", port: Port.make(0x40), size: 4, value: 0x1000 + vcpu },
          { _tag: "Keep" }
        ])
        const run = yield* runAllOn(numbered, seed)
        assert.strictEqual(run.end._tag, "Halted")
        for (const [vcpu, list] of numbered.entries()) {
          assert.deepStrictEqual(made(run, vcpu), meant(list))
          assert.strictEqual(wordsOf(run.vcpus[vcpu]!.results).at(-1), 0x1000 + vcpu)
        }
        most = Math.max(most, lists.length)
      }
      assert.strictEqual(most, 4)
    }))

  it.prop("programs of several vCPUs lie apart", [Arbitraries.guestPrograms(TestMachine.profile, { maxVcpus: 16 })], (
    [lists]
  ) => {
    const { plan, vcpus } = Result.getOrThrow(GuestProgram.assembleAll(lists))
    let end = 0
    for (const program of vcpus) {
      const { registers, resultAddress, resultBytes, resultEnd } = program
      // A page of stack, then all else.
      assert.strictEqual(Number(registers.gprs.rsp), end + 4096)
      assert.isAtLeast(resultEnd, end + 4096)
      assert.isAbove(Number(registers.rip), resultEnd)
      assert.isAbove(resultAddress, Number(registers.rip))
      assert.isAtMost(resultAddress + resultBytes, program.end)
      end = program.end
    }
    assert.strictEqual(plan.memoryBytes, end)
  })

  it.effect("work shows in the accumulator", () =>
    Effect.gen(function*() {
      const run = yield* runOn([
        { _tag: "Work", rounds: 1 },
        { _tag: "Keep" },
        { _tag: "Work", rounds: 1000 },
        { _tag: "Keep" }
      ])
      const first = GuestProgram.work(0, 1)
      assert.deepStrictEqual(wordsOf(run.results), [first, GuestProgram.work(first, 1000)])
    }))

  it.effect("a PCI access reads into, and writes from, the low bytes of the accumulator", () =>
    Effect.gen(function*() {
      const at = { bus: 0xff, device: 31, function: 7 }
      const run = yield* runOn([
        { _tag: "PciWrite", ...at, register: 0xffc, size: 4, value: 0x1122_3344 },
        { _tag: "PciRead", ...at, register: 0x106, size: 2 },
        { _tag: "Keep" },
        { _tag: "PciWrite", ...at, register: 0x0f, size: 1 },
        { _tag: "Keep" }
      ], Effect.void)
      // Nobody answers, so that a read gives all-ones.
      assert.deepStrictEqual(wordsOf(run.results), [0x1122_ffff, 0x1122_ffff])
      const writes = run.trace.entries.flatMap(({ _tag, request }) =>
        _tag === "Asked" && request._tag === "PciWrite" ? [request.value] : []
      )
      assert.deepStrictEqual(writes, [0x1122_3344, 0xff])
    }))

  it.effect("stops at a halt, with the results so far", () =>
    Effect.gen(function*() {
      const run = yield* runOn([
        { _tag: "PortOut", port: 0x40, size: 4, value: 7 },
        { _tag: "Keep" },
        { _tag: "Loop", times: 5, body: [{ _tag: "Halt" }] },
        { _tag: "Keep" }
      ])
      assert.deepStrictEqual([...run.results], [7, 0, 0, 0])
    }))

  it.effect("a program that is ended before its end has no results", () =>
    Effect.gen(function*() {
      const run = yield* runOn([
        { _tag: "Keep" },
        { _tag: "PortOut", port: 0xf4, size: 1, value: 3 },
        // ud2
        { _tag: "Code", bytes: Uint8Array.of(0x0f, 0x0b) }
      ], Effect.asVoid(DebugExit.make()))
      assert.deepStrictEqual(run.end, { _tag: "Exited", status: 3 })
      assert.deepStrictEqual([...run.results], [])
    }))

  it("refuses what is no program, and says why", () => {
    const loops = (depth: number): ReadonlyArray<GuestProgram.OperationInput> =>
      depth === 0 ? [] : [{ _tag: "Loop", times: 1, body: loops(depth - 1) }]
    let deep: ReadonlyArray<GuestProgram.OperationInput> = []
    for (let i = 0; i < 100_000; i++) deep = [{ _tag: "Loop", times: 1, body: deep }]

    assert.strictEqual(reasonOf([{ _tag: "PortIn", port: 0x1_0000, size: 1 }]), "BadOperation")
    assert.strictEqual(reasonOf([{ _tag: "PortIn", port: 0, size: 8 as 4 }]), "BadOperation")
    assert.strictEqual(reasonOf([{ _tag: "Nothing" } as never]), "BadOperation")
    assert.strictEqual(reasonOf([{ _tag: "Store", address: 2 ** 32, size: 1 }]), "BadOperation")
    assert.strictEqual(reasonOf([{ _tag: "Loop", times: 0, body: [] }]), "BadOperation")
    assert.strictEqual(reasonOf([{ _tag: "StringOut", port: 0, size: 2, bytes: new Uint8Array(3) }]), "BadBytes")
    assert.strictEqual(
      reasonOf([{ _tag: "Loop", times: 2, body: [{ _tag: "StringOut", port: 0, size: 1, bytes: new Uint8Array(0) }] }]),
      "BadBytes"
    )
    assert.isUndefined(reasonOf(loops(GuestProgram.MAX_LOOP_DEPTH)))
    assert.strictEqual(reasonOf(loops(GuestProgram.MAX_LOOP_DEPTH + 1)), "TooDeep")
    assert.strictEqual(reasonOf(deep), "TooDeep")
    assert.strictEqual(
      reasonOf([{ _tag: "Loop", times: 1000, body: [{ _tag: "Loop", times: 1000, body: [{ _tag: "Keep" }] }] }]),
      "TooLong"
    )
    assert.strictEqual(reasonOf([{ _tag: "Work", rounds: 600_000 }, { _tag: "Work", rounds: 600_000 }]), "TooLong")
    assert.strictEqual(reasonOf([{ _tag: "Loop", times: 2000, body: [{ _tag: "Keep" }] }], 8192), "TooBig")
    assert.strictEqual(reasonOf([{ _tag: "Load", address: 0, size: 8 }]), "TooWide")
    assert.strictEqual(reasonOf([{ _tag: "Store", address: 0, size: 8, value: 1n << 63n }]), "TooWide")
    assert.strictEqual(reasonOf([{ _tag: "Store", address: 0, size: 4, value: 1n }]), "BadOperation")
    assert.strictEqual(reasonOf([{ _tag: "Load", address: 0, size: 3 as 4 }]), "BadOperation")
    const at = { bus: 0, device: 0, function: 0 }
    assert.strictEqual(reasonOf([{ _tag: "PciRead", ...at, register: 3, size: 2 }]), "BadRegister")
    assert.strictEqual(reasonOf([{ _tag: "PciWrite", ...at, register: 0x1000, size: 1 }]), "BadOperation")
    assert.isUndefined(reasonOf([{ _tag: "PortIn", port: Port.make(0x60), size: 4 }], 1 << 20))
  })

  it("refuses what the hypervisor cannot run, and says why", () => {
    const allOn = (count: number, profile: HypervisorProfile, memoryBytes?: number) => {
      const programs = Array.from({ length: count }, (): ReadonlyArray<GuestProgram.OperationInput> => [])
      const assembled = GuestProgram.assembleAll(programs, { profile, memoryBytes })
      return Result.isFailure(assembled) ? assembled.failure.message : undefined
    }
    const { profile } = TestMachine
    assert.isUndefined(allOn(16, profile))
    assert.include(allOn(0, profile), "programs for 0 vCPUs")
    assert.include(allOn(17, profile), "programs for 17 vCPUs")
    assert.include(allOn(3, { ...profile, maxVcpus: 2 }), "2 vCPUs in a VM, and there are 3")
    assert.isUndefined(allOn(1, { ...profile, startsAllVcpus: false }))
    assert.include(allOn(2, { ...profile, startsAllVcpus: false }), "vCPU 0 alone")
    assert.include(allOn(1, { ...profile, modes: ["Real", "Long64"] }), "32-bit protected mode")
    assert.include(allOn(1, profile, 2 ** 31), "bytes of RAM")
  })
})
