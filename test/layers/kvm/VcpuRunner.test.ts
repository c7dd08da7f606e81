import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import { ExitReason } from "../../../src/layers/kvm/abi/ExitReason.ts"
import { type Exit, runToEnd, ScriptedVcpu, type Seen } from "./ScriptedVcpu.ts"

const Byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
const bytes = (least: number, most: number) =>
  Schema.Array(Byte).check(Schema.isMinLength(least), Schema.isMaxLength(most))

const MmioExit = Schema.Struct({
  isWrite: Schema.Boolean,
  address: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 46 })),
  data: bytes(1, 8)
})

const PortExit = Schema.Struct({
  isWrite: Schema.Boolean,
  port: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff })),
  size: Schema.Literals([1, 2, 4]),
  elements: Schema.Array(bytes(4, 4)).check(Schema.isMinLength(1), Schema.isMaxLength(5))
})

const littleEndian = (data: ReadonlyArray<number> | Uint8Array): bigint =>
  Array.from(data).reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)

/** The device answers a read with what would be the exit's data: so every read gives the guest that. */
const answerFrom = (exits: ReadonlyArray<Exit>) => {
  const answers = exits.flatMap((exit) => {
    if (exit._tag === "Mmio") {
      return exit.isWrite ? [] : [(request: Seen) => exit.data.slice(request.address - exit.address)]
    }
    if (exit._tag !== "Port" || exit.isWrite) return []
    return Array.from(
      { length: exit.data.length / exit.size },
      (_, index) => () => exit.data.slice(index * exit.size, (index + 1) * exit.size)
    )
  })
  return answers
}

const isBeyondPorts = ({ port, size }: { readonly port: number; readonly size: number }) => port + size > 0x1_0000

describe("VcpuRunner", () => {
  it.prop(
    "an MMIO access of any length is cut into requests of 1, 2, 4 and 8 bytes that cover it once, in order",
    [Schema.Array(MmioExit).check(Schema.isMinLength(1), Schema.isMaxLength(4)), Schema.Boolean],
    ([accesses, isLate]) => {
      const exits = accesses.map((access) => ({ _tag: "Mmio" as const, ...access, data: Uint8Array.from(access.data) }))
      let current = -1
      let left = 0
      const valueOf = (request: Seen): bigint => {
        if (left === 0) left = accesses[++current]!.data.length
        left -= request.size
        const { address, data } = accesses[current]!
        return littleEndian(data.slice(request.address - address, request.address - address + request.size))
      }
      let latest = 0n
      const vcpu = new ScriptedVcpu(exits, (request) => {
        latest = valueOf(request)
        return isLate ? undefined : latest
      })
      runToEnd(vcpu, () => latest)

      for (const { size } of vcpu.seen) assert.include([1, 2, 4, 8], size)
      let at = 0
      for (const { address, data, isWrite } of accesses) {
        let end = address
        while (end < address + data.length) {
          const request = vcpu.seen[at++]!
          const expected = littleEndian(data.slice(end - address, end - address + request.size))
          assert.deepStrictEqual(request, {
            type: "Mmio",
            isWrite,
            address: end,
            size: request.size,
            value: isWrite ? expected : 0n
          })
          end += request.size
        }
        assert.strictEqual(end, address + data.length)
      }
      assert.lengthOf(vcpu.seen, at)
      assert.deepStrictEqual(
        vcpu.read.map((data) => [...data]),
        accesses.filter(({ isWrite }) => !isWrite).map(({ data }) => [...data])
      )
    }
  )

  it.prop(
    "each element of a string instruction is a request; what lies beyond the last port reads as ones and is dropped",
    [Schema.Array(PortExit).check(Schema.isMinLength(1), Schema.isMaxLength(4)), Schema.Boolean],
    ([accesses, isLate]) => {
      const exits = accesses.map(({ elements, isWrite, port, size }) => ({
        _tag: "Port" as const,
        isWrite,
        port,
        size,
        data: Uint8Array.from(elements.flatMap((element) => element.slice(0, size)))
      }))
      const answers = answerFrom(exits.filter((exit) => !isBeyondPorts(exit)))
      let latest = 0n
      const vcpu = new ScriptedVcpu(exits, (request) => {
        latest = request.isWrite ? 0n : littleEndian(answers.shift()!(request))
        return isLate ? undefined : latest
      })
      runToEnd(vcpu, () => latest)

      assert.deepStrictEqual(
        vcpu.seen,
        exits.filter((exit) => !isBeyondPorts(exit)).flatMap(({ data, isWrite, port, size }) =>
          Array.from({ length: data.length / size }, (_, index): Seen => ({
            type: "Port",
            isWrite,
            address: port,
            size,
            value: isWrite ? littleEndian(data.slice(index * size, (index + 1) * size)) : 0n
          }))
        )
      )
      assert.deepStrictEqual(
        vcpu.read.map((data) => [...data]),
        exits.filter(({ isWrite }) => !isWrite).map((exit) =>
          isBeyondPorts(exit) ? [...exit.data].map(() => 0xff) : [...exit.data]
        )
      )
    }
  )

  const portRead: Exit = { _tag: "Port", isWrite: false, port: 0x60, size: 1, data: Uint8Array.of(0) }
  const halt: Exit = { _tag: "Other", reason: ExitReason.HLT }

  it("stands inside an instruction until its answer, and settling finishes it with one entry", () => {
    const vcpu = new ScriptedVcpu([portRead, halt], () => undefined)
    assert.strictEqual(vcpu.runner.run(8), "Waiting")
    assert.isTrue(vcpu.runner.isInside)
    assert.isFalse(vcpu.runner.settle())
    assert.strictEqual(vcpu.entries, 1)
    vcpu.complete(0x5an)
    assert.isTrue(vcpu.runner.settle())
    assert.isFalse(vcpu.runner.isInside)
    assert.strictEqual(vcpu.entries, 2)
    assert.deepStrictEqual(vcpu.read, [Uint8Array.of(0x5a)])
    assert.isTrue(vcpu.runner.settle())
    assert.strictEqual(vcpu.entries, 2)
    assert.strictEqual(vcpu.runner.run(8), "Halted")
  })

  it("an answer to a discarded instruction is awaited and given to nobody", () => {
    const vcpu = new ScriptedVcpu([portRead, portRead, halt], () => undefined)
    vcpu.runner.run(8)
    vcpu.runner.discard()
    assert.isFalse(vcpu.runner.isInside)
    assert.strictEqual(vcpu.runner.run(8), "Waiting")
    assert.lengthOf(vcpu.seen, 1)
    vcpu.complete(0x11n)
    assert.strictEqual(vcpu.runner.run(8), "Waiting")
    assert.lengthOf(vcpu.seen, 2)
    vcpu.complete(0x22n)
    assert.strictEqual(vcpu.runner.run(8), "Halted")
    assert.deepStrictEqual(vcpu.read.at(-1), Uint8Array.of(0x22))
  })

  it("an abandoned request is awaited by nobody", () => {
    const vcpu = new ScriptedVcpu([portRead, halt], () => undefined)
    vcpu.runner.run(8)
    vcpu.runner.abandon()
    assert.isFalse(vcpu.runner.isInside)
    assert.strictEqual(vcpu.runner.run(8), "Halted")
  })

  it("the slot is free before the next request, and after the last", () => {
    const vcpu = new ScriptedVcpu([portRead, halt], () => 1n)
    assert.strictEqual(vcpu.runner.run(8), "Halted")
    assert.strictEqual(vcpu.slotState, Slot.SlotStateCode.Free)
  })

  it("goes on when the guest sets its priority", () => {
    const exits: ReadonlyArray<Exit> = [{ _tag: "Other", reason: ExitReason.SET_TPR }, portRead, halt]
    const vcpu = new ScriptedVcpu(exits, () => 1n)
    assert.strictEqual(vcpu.runner.run(8), "Halted")
    assert.lengthOf(vcpu.seen, 1)
  })

  it("gives the thread back after so many exits, when a signal comes, and at any exit that is no access", () => {
    assert.strictEqual(new ScriptedVcpu([portRead, portRead, halt], () => 1n).runner.run(2), "Exhausted")
    assert.strictEqual(new ScriptedVcpu([portRead, { _tag: "Signal" }], () => 1n).runner.run(8), "Interrupted")
    assert.strictEqual(
      new ScriptedVcpu([{ _tag: "Other", reason: ExitReason.SHUTDOWN }], () => 1n).runner.run(8),
      "Exited"
    )
  })
})
