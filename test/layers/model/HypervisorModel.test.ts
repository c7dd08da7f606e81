/** What a layer may do that is built on the model: make no VM, have no time of its own, and answer in eight bytes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Result, Scope } from "effect"
import { type Hypercall } from "../../../src/domain/Hypercall.ts"
import { HypervisorModel } from "../../../src/layers/model/HypervisorModel.ts"
import { SlotWriter } from "../../../src/layers/model/SlotWriter.ts"
import type { VmEngine } from "../../../src/layers/model/VmEngine.ts"
import { AddressSpace, makeServiceMemory, sharedBacking } from "../../../src/services/AddressSpace.ts"
import type { UpcallHint } from "../../../src/services/Upcalls.ts"
import * as TestMachine from "../../../src/testing/TestMachine.ts"

const COMPLETE = 1
const MMIO = 1
const READ = 0
const WRITE = 1
const VALUE = 88
const STATE = 136

const createVm: Hypercall = {
  _tag: "CreateVm",
  creation: { vmid: 0, vcpuNum: 0, uuid: new Uint8Array(16), vmFlag: 0n, ioreqBuf: 0n, cpuAffinity: 1n }
}

/** An engine that executes nothing, and the calls that it got. */
const engineOf = (calls: Array<string>): VmEngine => ({
  time: undefined,
  setRequestPage: (page) => calls.push(page === undefined ? "no page" : "page"),
  setRegisters: () => 0,
  getRegisters: () => undefined,
  applyMemory: ({ size, userVmPa }) => calls.push(`memory ${userVmPa} ${size}`) && 0,
  start: () => calls.push("start"),
  pause: Effect.sync(() => calls.push("pause")),
  resume: () => calls.push("resume"),
  reset: () => calls.push("reset"),
  destroy: Effect.sync(() => calls.push("destroy")),
  notify: () => calls.push("notify"),
  setIrq: (line, high) => calls.push(`line ${line} ${high}`)
})

const modelOf = (makeEngine: () => VmEngine | number, profile = TestMachine.profile) => {
  const memory = makeServiceMemory(new AddressSpace(), (bytes) => Result.succeed(sharedBacking(bytes)))
  return new HypervisorModel({ profile, memory, maxVms: 1, configuredVcpus: 1, makeEngine })
}

describe("a layer on the model", () => {
  it.effect("that cannot make a VM refuses CREATE_VM with its reason, and has room for the next", () =>
    Effect.gen(function*() {
      const answers: Array<VmEngine | number> = [-12, engineOf([])]
      const model = modelOf(() => answers.shift()!)
      assert.deepStrictEqual(yield* model.execute(createVm), { result: -12 })
      assert.deepStrictEqual(yield* model.execute(createVm), { result: 0, created: { vmId: 1, vcpuNum: 1 } })
    }))

  it.effect("that has no time of its own leaves its VMs the host's", () =>
    Effect.gen(function*() {
      const model = modelOf(() => engineOf([]))
      yield* model.execute(createVm)
      assert.isUndefined(model.timeOf(1))
    }))

  it.effect("gets operations that continue each other as one", () =>
    Effect.gen(function*() {
      const calls: Array<string> = []
      const model = modelOf(() => engineOf(calls))
      yield* model.execute(createVm)
      const page = (guest: number, service: number, type = 0) => ({
        type,
        attr: 0x47,
        userVmPa: BigInt(guest) * 0x1000n,
        serviceVmPa: BigInt(service) * 0x1000n,
        size: 0x1000n
      })
      const operations = [page(0, 7), page(1, 8), page(2, 9), page(3, 11), page(5, 12), page(5, 0, 2), page(6, 5, 2)]
      const outcome = yield* model.execute({ _tag: "SetMemoryRegions", vmId: 1, operations })
      assert.deepStrictEqual(outcome, { result: 0 })
      assert.deepStrictEqual(calls, ["memory 0 12288", "memory 12288 4096", "memory 20480 4096", "memory 20480 8192"])
    }))

  it.effect("gets no memory that its guests have no addresses for", () =>
    Effect.gen(function*() {
      const calls: Array<string> = []
      const model = modelOf(() => engineOf(calls), { ...TestMachine.profile, addressBits: 36 })
      yield* model.execute(createVm)
      const lastPage = 2n ** 36n - 0x1000n
      const map = (userVmPa: bigint, size: bigint) =>
        model.execute({
          _tag: "SetMemoryRegions",
          vmId: 1,
          operations: [{ type: 0, attr: 0x47, userVmPa, serviceVmPa: 0n, size }]
        })
      assert.deepStrictEqual(yield* map(lastPage, 0x2000n), { result: -22 })
      assert.deepStrictEqual(yield* map(lastPage, 0x1000n), { result: 0 })
      assert.deepStrictEqual(calls, [`memory ${lastPage} 4096`])
    }))

  it.effect("hears of the timer's line where its controllers have it", () =>
    Effect.gen(function*() {
      const calls: Array<string> = []
      const model = modelOf(() => engineOf(calls))
      yield* model.execute(createVm)
      for (const [gsi, op] of [[2, 0], [2, 1], [0, 2], [15, 3], [4, 9]] as const) {
        assert.deepStrictEqual(yield* model.execute({ _tag: "SetIrqLine", vmId: 1, gsi, op }), { result: 0 })
      }
      assert.deepStrictEqual(calls, [
        "line 0 true",
        "line 0 false",
        "line 0 true",
        "line 0 false",
        "line 15 false",
        "line 15 true"
      ])
    }))

  it.effect("carries both words of an access of 8 bytes, and one of every other", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const memory = makeServiceMemory(new AddressSpace(), (bytes) => Result.succeed(sharedBacking(bytes)))
      const { address } = yield* Scope.provide(
        memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } }),
        scope
      )
      const page = Result.getOrThrow(memory.page(address))
      const hints: Array<UpcallHint | undefined> = []
      const slot = new SlotWriter(1, 0, (hint) => hints.push(hint), false)
      slot.setPage(page)
      const answer = (low: number, high: number): number => {
        page.store32(VALUE, low)
        page.store32(VALUE + 4, high)
        page.store32(STATE, COMPLETE)
        slot.isNotified = true
        assert.isTrue(slot.isAnswered())
        return slot.take()
      }
      slot.submit(MMIO, WRITE, 0xf000_0000, 8, 0x1111_1111, 0x7222_2222)
      assert.deepStrictEqual([page.load32(VALUE), page.load32(VALUE + 4)], [0x1111_1111, 0x7222_2222])
      answer(0, 0)
      slot.submit(MMIO, WRITE, 0xf000_0000, 4, 3)
      assert.deepStrictEqual(
        [page.load32(VALUE), page.load32(VALUE + 4)],
        [3, 0],
        "nothing of the last request is left"
      )
      answer(0, 0)
      slot.submit(MMIO, READ, 0xf000_0000, 8, 0)
      assert.deepStrictEqual([answer(-1, -2), slot.answerHigh], [0xffff_ffff, 0xffff_fffe])
      slot.submit(MMIO, READ, 0xf000_0000, 4, 0)
      // Whoever answers may write more than was asked for.
      assert.deepStrictEqual([answer(5, 6), slot.answerHigh], [5, 0xffff_fffe], "the last answer of 8 bytes")
      assert.strictEqual(hints.length, 4)
      yield* Scope.close(scope, Exit.void)
    }))
})
