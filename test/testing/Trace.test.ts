import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Arbitrary from "effect/Arbitrary"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"
import * as Trace from "../../src/testing/Trace.ts"
import { Fnv1a64 } from "../../src/testing/trace/Fnv1a64.ts"

const { profile } = TestMachine
const json = Schema.toCodecJson(Trace.Trace)

/** A machine whose every access is answered with all that fits, and the trace of some requests on it. */
const traceOf = (requests: ReadonlyArray<IoRequest>, options?: { readonly keep?: number }) =>
  Effect.scoped(Effect.gen(function*() {
    const machine = yield* TestMachine.make({ vcpus: 16 })
    yield* machine.attach(
      machine.vm.io.registerDefault({ name: "any", handle: () => Effect.succeed(0x8877_6655_4433_2211n) })
    )
    const recording = yield* Trace.record(machine.vm, options)
    for (const request of requests) yield* machine.submit(request)
    return { trace: yield* recording.trace, hash: yield* recording.hash }
  }))

const requests = Arbitrary.array(Arbitraries.ioRequest(profile), { maxLength: 12 })

describe("Trace", () => {
  it("hashes as FNV-1a does", () => {
    // The test vectors of RFC 9923.
    for (
      const [text, expected] of [["", "cbf29ce484222325"], ["a", "af63dc4c8601ec8c"], ["foobar", "85944171f73967e8"]]
    ) {
      const hashing = new Fnv1a64()
      for (const character of text!) hashing.byte(character.charCodeAt(0))
      assert.strictEqual(hashing.toString(), expected)
    }
  })

  it.effect.prop(
    "is asked and answered in turn, and every entry is one by its schema",
    [requests],
    ([asked]) =>
      Effect.gen(function*() {
        const { trace } = yield* traceOf(asked)
        assert.isTrue(Schema.is(Trace.Trace)(trace))
        assert.deepStrictEqual(
          trace.entries.map((entry) => entry._tag),
          asked.flatMap(() => ["Asked", "Answered"] as const)
        )
      })
  )

  it.effect.prop(
    "answers are what the guest reads, and writes have none",
    [requests],
    ([asked]) =>
      Effect.gen(function*() {
        const { trace } = yield* traceOf(asked)
        for (const entry of trace.entries) {
          if (entry._tag !== "Answered") continue
          // A data port of PCI whose enable bit is clear answers all-ones by itself.
          if (entry.client !== "any") continue
          const all = 0x8877_6655_4433_2211n
          const expected = "value" in entry.request
            ? undefined
            : BigInt.asUintN(8 * entry.request.size, all)
          assert.strictEqual(entry.answer === undefined ? undefined : BigInt(entry.answer), expected)
        }
      })
  )

  it.effect.prop("survives a file, hash and all", [requests], ([asked]) =>
    Effect.gen(function*() {
      const { trace } = yield* traceOf(asked)
      const text = JSON.stringify(yield* Schema.encodeEffect(json)(trace))
      const back = yield* Schema.decodeUnknownEffect(json)(JSON.parse(text))
      assert.deepStrictEqual(back, trace)
      assert.strictEqual(Trace.hash(back.entries), trace.hash)
    }))

  it.effect.prop(
    "two traces have one hash exactly when they are the same",
    [requests, requests],
    ([one, two]) =>
      Effect.gen(function*() {
        const [a, b] = [(yield* traceOf(one)).trace, (yield* traceOf(two)).trace]
        const isSame = Trace.firstDifference(a.entries, b.entries) === undefined
        assert.strictEqual(a.hash === b.hash, isSame)
        assert.strictEqual((yield* traceOf(one)).hash, a.hash)
      })
  )

  it.effect.prop("in bytes, nothing but the widths is different", [requests], ([asked]) =>
    Effect.gen(function*() {
      const { trace } = yield* traceOf(asked)
      const split = Trace.inBytes(trace.entries)
      assert.isTrue(Schema.is(Schema.Array(Trace.TraceEntry))(split))
      assert.deepStrictEqual(Trace.inBytes(split), split)
      const bytes = (entries: ReadonlyArray<Trace.TraceEntry>) =>
        entries.flatMap((entry) => {
          const { request } = entry
          if (entry._tag === "Asked" || !("address" in request)) return []
          const word = "value" in request ? request.value : BigInt(entry.answer!)
          return Array.from({ length: request.size }, (_, i) => [request.address + i, word >> BigInt(8 * i) & 0xffn])
        })
      assert.deepStrictEqual(bytes(split), bytes(trace.entries))
      const others = (entries: ReadonlyArray<Trace.TraceEntry>) =>
        entries.filter((entry) => !("address" in entry.request))
      assert.deepStrictEqual(others(split), others(trace.entries))
    }))

  it.effect.prop("the hash covers what is not kept", [requests], ([asked]) =>
    Effect.gen(function*() {
      const all = yield* traceOf(asked)
      const some = yield* traceOf(asked, { keep: 3 })
      assert.strictEqual(some.hash, all.hash)
      assert.deepStrictEqual(some.trace.entries, all.trace.entries.slice(0, 3))
    }))

  it.effect("ends with its scope", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      const recording = yield* Effect.scoped(Trace.record(machine.vm))
      yield* machine.portRead(0x60, 1)
      assert.deepStrictEqual((yield* recording.trace).entries, [])
    }))

  it.effect("tells of accesses that nobody owns", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      yield* machine.attach(machine.vm.io.register({
        name: "kbd",
        ranges: [IoRange.ports(0x60, 0x60)],
        handle: () => Effect.succeed(0x1fa)
      }))
      const recording = yield* Trace.record(machine.vm)
      yield* machine.portRead(0x60, 1)
      yield* machine.portRead(0x61, 2)
      yield* machine.mmioWrite(0x1234, 4, 5n)
      const { entries } = yield* recording.trace
      assert.deepStrictEqual(entries.map(Trace.format), [
        "kbd was asked: read 1 byte from port 0x60 (vCPU 0)",
        "kbd answered 0xfa: read 1 byte from port 0x60 (vCPU 0)",
        "(nobody) was asked: read 2 bytes from port 0x61 (vCPU 0)",
        "(nobody) answered 0xffff: read 2 bytes from port 0x61 (vCPU 0)",
        "(nobody) was asked: write 4 bytes 0x5 to guest address 0x1234 (vCPU 0)",
        "(nobody) answered: write 4 bytes 0x5 to guest address 0x1234 (vCPU 0)"
      ])
    }))
})
