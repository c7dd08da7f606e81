import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { Port } from "../../src/domain/Address.ts"
import * as DebugExit from "../../src/layers/devices/DebugExit.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import { probes } from "./probe.ts"

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
      case "Loop":
        return Array.from({ length: operation.times }, () => meant(operation.body)).flat()
      default:
        return []
    }
  })

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
      const made = run.trace.entries.flatMap(({ _tag, request }) =>
        _tag === "Asked" && "address" in request
          ? [`${request._tag} ${request.address} ${request.size}`]
          : _tag === "Asked" && "port" in request
          ? [`${request._tag} ${request.port} ${request.size}`]
          : []
      )
      assert.deepStrictEqual(made, meant(operations))
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
    assert.strictEqual(reasonOf([{ _tag: "Loop", times: 2000, body: [{ _tag: "Keep" }] }], 8192), "TooBig")
    assert.isUndefined(reasonOf([{ _tag: "PortIn", port: Port.make(0x60), size: 4 }], 1 << 20))
  })
})
