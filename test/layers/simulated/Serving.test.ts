/** A hypervisor under memory that somebody else owns: what a Service VM with a kernel of its own sees of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { IoRequestBufferWord } from "../../../src/domain/abi/IoRequestBufferWord.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "../../../src/domain/abi/MemoryRegionBatch.ts"
import { VcpuRegs } from "../../../src/domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../../src/domain/abi/VmCreation.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import { AddressSpace, type RawBacking, rawBacking } from "../../../src/services/AddressSpace.ts"
import { HypercallGate } from "../../../src/services/HypercallGate.ts"
import { ServiceMemory } from "../../../src/services/ServiceMemory.ts"
import { Upcalls } from "../../../src/services/Upcalls.ts"
import { turns } from "../../support/machines.ts"

const PAGE = 4096
// The kernel's image, which the hypervisor cannot see, lies below.
const BASE = 0x31_f000
const MEMORY_PAGES = 256

const PENDING = 0
const COMPLETE = 1
const FREE = 3

/** A kernel that lays its structures out by itself, as far as a test needs one. */
const makeKernel = (space: AddressSpace<RawBacking>, pages = MEMORY_PAGES) =>
  Effect.gen(function*() {
    const gate = yield* HypercallGate
    const upcalls = yield* Upcalls
    const mapping = new ArrayBuffer(pages * PAGE)
    const bytes = new Uint8Array(mapping)
    const words = new Int32Array(mapping)
    let raised = 0
    // The immediate first call comes before there is any memory.
    yield* upcalls.register(() => raised++)
    Result.getOrThrow(space.insertAt(BASE, rawBacking(bytes)))
    const addressOf = (page: number) => BASE + page * PAGE
    const put = (page: number, structure: Result.Result<Uint8Array<ArrayBuffer>, unknown>): bigint => {
      bytes.set(Result.getOrThrow(structure), page * PAGE + 8)
      return BigInt(addressOf(page) + 8)
    }
    const call = (id: number, param1: bigint | number, param2 = 0n) => gate.call(id, BigInt(param1), param2)
    return {
      bytes,
      mapping,
      addressOf,
      put,
      call,
      raised: () => raised,
      state: (page: number) => Atomics.load(words, page * PAGE / 4 + 34),
      complete: (page: number, vmId: number) => {
        Atomics.store(words, page * PAGE / 4 + 34, COMPLETE)
        assert.strictEqual(gate.notifyFinish(vmId, 0), 0)
      },
      word: (page: number, offset: number) => words[page * PAGE / 4 + offset / 4]!,
      create: (page: number) =>
        Effect.map(
          call(
            HypercallId.CreateVm,
            put(
              page,
              VmCreation.encode({
                vmid: 0,
                vcpuNum: 0,
                uuid: new Uint8Array(16),
                vmFlag: 0n,
                ioreqBuf: 0x4a_b000n,
                cpuAffinity: 0n
              })
            )
          ),
          (result) => ({
            result,
            ...Result.getOrThrow(VmCreation.decode(bytes.slice(page * PAGE + 8, page * PAGE + 8 + 48)))
          })
        ),
      batch: (page: number, vmid: number, operations: ReadonlyArray<MemoryRegionOp>) =>
        Effect.suspend(() => {
          const head = put(
            page,
            MemoryRegionBatch.encode({
              vmid,
              regionsNum: operations.length,
              regionsGpa: BigInt(addressOf(page) + 8 + 24)
            })
          )
          for (const [i, operation] of operations.entries()) {
            Result.getOrThrow(MemoryRegionOp.encodeInto(operation, bytes, page * PAGE + 8 + 24 + i * 32))
          }
          return call(HypercallId.SetMemoryRegions, head)
        })
    }
  })

const operation = (guest: number, service: number): MemoryRegionOp => ({
  type: 0,
  attr: 0x47,
  userVmPa: BigInt(guest),
  serviceVmPa: BigInt(service),
  size: 0x1000n
})

const over = (options: Simulated.SimulatedOptions = {}) => {
  const space = new AddressSpace<RawBacking>()
  return {
    space,
    run: <A, E>(program: Effect.Effect<A, E>) =>
      program.pipe(Effect.scoped, Effect.provide(Simulated.layerOver(space, options), { local: true }))
  }
}

type Kernel = Effect.Success<ReturnType<typeof makeKernel>>

const IOREQ = 3
const STRUCTURES = 4
const FIRST_RAM = 40
const RAM_PAGES = 16

/** A VM with 64 KiB of RAM, whose pages lie in reverse order; its program is `code`, in real mode at 0. */
const boot = (kernel: Kernel, code: ReadonlyArray<number>) =>
  Effect.gen(function*() {
    const { result, vcpuNum, vmid } = yield* kernel.create(STRUCTURES)
    assert.deepStrictEqual([result, vcpuNum], [0, 1], "an empty affinity means what is configured")
    const page = kernel.put(STRUCTURES, IoRequestBufferWord.encode({ ioreqBuf: BigInt(kernel.addressOf(IOREQ)) }))
    // The page was the user's: it holds anything.
    kernel.bytes.fill(0x5a, IOREQ * PAGE, (IOREQ + 1) * PAGE)
    assert.strictEqual(yield* kernel.call(HypercallId.SetIoRequestBuffer, vmid, page), 0)
    assert.strictEqual(kernel.state(IOREQ), FREE)
    const pageOf = (guest: number) => FIRST_RAM + RAM_PAGES - 1 - guest
    const operations = Array.from(
      { length: RAM_PAGES },
      (_, guest) => operation(guest * PAGE, kernel.addressOf(pageOf(guest)))
    )
    assert.strictEqual(yield* kernel.batch(STRUCTURES, vmid, operations), 0)
    // Structures are freed when the call returns, and the program comes after the mapping.
    kernel.bytes.fill(0xee, STRUCTURES * PAGE, (STRUCTURES + 2) * PAGE)
    kernel.bytes.set(code, pageOf(0) * PAGE)
    const registers = { ...VcpuRegisters.realMode({ ip: 0 }), csSel: 0xf000 }
    const set = kernel.put(STRUCTURES, VcpuRegs.encode({ vcpuId: 0, vcpuRegs: registers }))
    assert.strictEqual(yield* kernel.call(HypercallId.SetVcpuRegs, vmid, set), 0)
    return { vmId: vmid, pageOf }
  })

// OUT 0x80, AL for ever, and to the page at 0x2000 what was counted.
const COUNTING = [0xe6, 0x80, 0x40, 0xa2, 0x00, 0x20, 0xeb, 0xf8]

describe("Simulated under a Service VM's own memory", () => {
  it.effect("serves a kernel whose memory came after it, page by scattered page", () => {
    const { run, space } = over()
    return run(Effect.gen(function*() {
      const kernel = yield* makeKernel(space)
      const { pageOf, vmId } = yield* boot(kernel, COUNTING)
      const before = kernel.raised()
      assert.strictEqual(yield* kernel.call(HypercallId.StartVm, vmId), 0)
      for (let count = 0; count < 5; count++) {
        yield* turns(4)
        assert.strictEqual(kernel.state(IOREQ), PENDING)
        assert.deepStrictEqual([kernel.word(IOREQ, 72), kernel.word(IOREQ, 80), kernel.word(IOREQ, 88)], [
          0x80,
          1,
          count
        ])
        assert.strictEqual(kernel.raised(), before + count + 1)
        kernel.complete(IOREQ, vmId)
        assert.strictEqual(kernel.raised(), before + count + 1, "no hypercall runs a vCPU")
      }
      yield* turns(4)
      assert.strictEqual(kernel.bytes[pageOf(2) * PAGE], 5)
    }) as Effect.Effect<void>)
  })

  it.effect("a program above it cannot allocate, and is told why", () => {
    const { run } = over()
    return run(Effect.gen(function*() {
      const memory = yield* ServiceMemory
      const error = yield* Effect.flip(memory.allocate({ bytes: PAGE, purpose: { _tag: "HypercallStructures" } }))
      assert.include(error.message, "belongs to the Service VM's own kernel")
    }) as Effect.Effect<void>)
  })

  it.effect("before there is memory, and outside of it, structures are nowhere", () => {
    const { run, space } = over()
    return run(Effect.gen(function*() {
      const gate = yield* HypercallGate
      assert.strictEqual(yield* gate.call(HypercallId.CreateVm, BigInt(BASE), 0n), -25)
      const kernel = yield* makeKernel(space)
      assert.strictEqual((yield* kernel.create(STRUCTURES)).result, 0)
      const end = BigInt(kernel.addressOf(MEMORY_PAGES))
      for (const address of [0n, BigInt(BASE - 8), end - 40n, end]) {
        assert.strictEqual(yield* kernel.call(HypercallId.CreateVm, address), -25)
        assert.strictEqual(yield* kernel.call(HypercallId.SetIoRequestBuffer, 1, address & ~7n || end), -1)
      }
    }) as Effect.Effect<void>)
  })

  it.effect("structures may lie at address 0, but for registers, as with ACRN", () => {
    const { run, space } = over()
    return run(Effect.gen(function*() {
      const gate = yield* HypercallGate
      const bytes = new Uint8Array(PAGE)
      Result.getOrThrow(space.insertAt(0, rawBacking(bytes)))
      assert.strictEqual(yield* gate.call(HypercallId.CreateVm, 0n, 0n), 0)
      const vcpuRegs = VcpuRegisters.flat32({ entry: 0 })
      for (const [at, result] of [[0, -1], [8, 0]] as const) {
        bytes.set(Result.getOrThrow(VcpuRegs.encode({ vcpuId: 0, vcpuRegs })), at)
        assert.strictEqual(yield* gate.call(HypercallId.SetVcpuRegs, 1n, BigInt(at)), result)
      }
    }) as Effect.Effect<void>)
  })

  // At each point of a guest's life: while it computes, and while its request is out.
  for (
    const [name, code, answers] of [["computes", [0x40, 0xa2, 0x00, 0x20, 0xeb, 0xfa], 0], [
      "waits",
      COUNTING,
      2
    ]] as const
  ) {
    it.effect(`nothing is touched after DESTROY_VM of a VM that ${name}`, () => {
      const { run, space } = over({ destroyRunning: "Stop" })
      return run(Effect.gen(function*() {
        const kernel = yield* makeKernel(space)
        const { pageOf, vmId } = yield* boot(kernel, code)
        yield* kernel.call(HypercallId.StartVm, vmId)
        yield* turns(4)
        for (let i = 0; i < answers; i++) {
          kernel.complete(IOREQ, vmId)
          yield* turns(4)
        }
        // A notification whose vCPU has not run yet.
        if (answers > 0) kernel.complete(IOREQ, vmId)
        assert.notStrictEqual(kernel.bytes[pageOf(2) * PAGE], 0, "it ran")
        assert.strictEqual(yield* kernel.call(HypercallId.DestroyVm, vmId), 0)
        const left = kernel.bytes.slice()
        yield* turns(20)
        assert.isTrue(Buffer.from(left).equals(Buffer.from(kernel.bytes)))
        assert.strictEqual((yield* kernel.create(STRUCTURES)).vmid, vmId, "its id is free")
      }) as Effect.Effect<void>)
    })
  }

  it.effect("DESTROY_VM of a VM that is not paused is refused, or told to be taken", () =>
    Effect.gen(function*() {
      for (const [destroyRunning, created, running] of [["Refuse", -1, -1], ["Stop", 0, 0]] as const) {
        const { run, space } = over({ destroyRunning })
        yield* run(Effect.gen(function*() {
          const kernel = yield* makeKernel(space)
          const first = yield* kernel.create(STRUCTURES)
          assert.strictEqual(yield* kernel.call(HypercallId.DestroyVm, first.vmid), created)
          const { vmId } = yield* boot(kernel, COUNTING)
          yield* kernel.call(HypercallId.StartVm, vmId)
          yield* turns(4)
          assert.strictEqual(yield* kernel.call(HypercallId.DestroyVm, vmId), running)
          assert.strictEqual(yield* kernel.call(HypercallId.PauseVm, vmId), running === 0 ? -1 : 0)
          if (running !== 0) assert.strictEqual(yield* kernel.call(HypercallId.DestroyVm, vmId), 0)
        }) as Effect.Effect<void>)
      }
    }))

  it.effect("takes 300 MiB of RAM in one batch of scattered pages", () => {
    const { run, space } = over()
    const count = 76_800
    return run(Effect.gen(function*() {
      const structurePages = Math.ceil((count * 32 + 32) / PAGE) + STRUCTURES
      const kernel = yield* makeKernel(space, structurePages + 64)
      const { vmid } = yield* kernel.create(0)
      // Runs of 55 pages, as the driver gets them from a fragmented machine.
      const operations = Array.from(
        { length: count },
        (_, i) => operation(i * PAGE, kernel.addressOf(structurePages + i % 55))
      )
      assert.strictEqual(yield* kernel.batch(STRUCTURES, vmid, operations), 0)
      // Every page is there: it can be taken away, and the one behind it not.
      const remove = (guest: number) => kernel.batch(STRUCTURES, vmid, [{ ...operation(guest, 0), type: 2, attr: 0 }])
      for (const page of [0, 1, 54, 55, 40_000, count - 1]) assert.strictEqual(yield* remove(page * PAGE), 0)
      assert.strictEqual(yield* remove(count * PAGE), -22)
    }) as Effect.Effect<void>)
  })
})
