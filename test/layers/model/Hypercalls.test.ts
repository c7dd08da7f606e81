/** ACRN's rules of acceptance, one by one, at the level of ids, words and bytes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { fromNumber, HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { MemoryRegionBatch } from "../../../src/domain/abi/MemoryRegionBatch.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import { IrqLines, Resume, VcpuState } from "../../../src/services/Hypervisor.ts"
import { add, EINVAL, ENOTTY, EPERM, makeRaw, NO_VM, NOWHERE, type Raw } from "../../support/gate.ts"
import * as g from "../../support/guest.ts"
import { onSimulated } from "../../support/machines.ts"

const FREE = 3
const ALL_FREE = Array.from({ length: 16 }, () => FREE)
const flat = VcpuRegisters.flat32({ entry: 0x1000, stack: 0x8000 })

type Stage = "created" | "with page" | "running" | "paused fresh" | "paused" | "reset"

/** A VM brought to a stage of its life by the shortest way. */
const vmAt = (raw: Raw, stage: Stage) =>
  Effect.gen(function*() {
    const { vmId } = yield* raw.create(3n)
    const page = yield* raw.newPage()
    if (stage === "created") return { vmId, page }
    yield* raw.setPage(vmId, BigInt(page))
    yield* raw.setRegisters(vmId, 0, flat)
    if (stage === "paused fresh") yield* raw.pause(vmId)
    if (stage === "with page" || stage === "paused fresh") return { vmId, page }
    yield* raw.start(vmId)
    if (stage !== "running") yield* raw.pause(vmId)
    if (stage === "reset") yield* raw.reset(vmId)
    return { vmId, page }
  })

/** The result of one call at each stage, each on a VM of its own. */
const atEachStage = (call: (raw: Raw, vm: { readonly vmId: number; readonly page: number }) => Effect.Effect<number>) =>
  Effect.gen(function*() {
    const raw = yield* makeRaw
    const results: Record<string, number> = {}
    for (const stage of ["created", "with page", "running", "paused fresh", "paused", "reset"] as const) {
      results[stage] = yield* call(raw, yield* vmAt(raw, stage))
    }
    const gone = yield* vmAt(raw, "paused")
    yield* raw.destroy(gone.vmId)
    results["destroyed"] = yield* call(raw, gone)
    results["never"] = yield* call(raw, { vmId: 257, page: gone.page })
    return results
  }).pipe(onSimulated())

describe("hypercalls as ACRN takes them", () => {
  it.effect("DESTROY_VM: a paused VM only", () =>
    Effect.map(
      atEachStage((raw, { vmId }) => raw.destroy(vmId)),
      (results) =>
        assert.deepStrictEqual(results, {
          created: EPERM,
          "with page": EPERM,
          running: EPERM,
          "paused fresh": 0,
          paused: 0,
          reset: EPERM,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("START_VM: a created VM whose page is set; the page outlives a reset", () =>
    Effect.map(
      atEachStage((raw, { vmId }) => raw.start(vmId)),
      (results) =>
        assert.deepStrictEqual(results, {
          created: EPERM,
          "with page": 0,
          running: EPERM,
          "paused fresh": EPERM,
          paused: EPERM,
          reset: 0,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("PAUSE_VM: any VM, a paused one too", () =>
    Effect.map(
      atEachStage((raw, { vmId }) => raw.pause(vmId)),
      (results) =>
        assert.deepStrictEqual(results, {
          created: 0,
          "with page": 0,
          running: 0,
          "paused fresh": 0,
          paused: 0,
          reset: 0,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("RESET_VM: a paused VM only", () =>
    Effect.map(
      atEachStage((raw, { vmId }) => raw.reset(vmId)),
      (results) =>
        assert.deepStrictEqual(results, {
          created: EPERM,
          "with page": EPERM,
          running: EPERM,
          "paused fresh": 0,
          paused: 0,
          reset: EPERM,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("SET_VCPU_REGS: not a running VM", () =>
    Effect.map(
      atEachStage((raw, { vmId }) => raw.setRegisters(vmId, 0, flat)),
      (results) =>
        assert.deepStrictEqual(results, {
          created: 0,
          "with page": 0,
          running: EPERM,
          "paused fresh": 0,
          paused: 0,
          reset: 0,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("SET_IOREQ_BUFFER: a created VM only", () =>
    Effect.map(
      atEachStage((raw, { page, vmId }) => raw.setPage(vmId, BigInt(page))),
      (results) =>
        assert.deepStrictEqual(results, {
          created: 0,
          "with page": 0,
          running: EPERM,
          "paused fresh": EPERM,
          paused: EPERM,
          reset: 0,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("NOTIFY_REQUEST_FINISH: any VM whose page is set", () =>
    Effect.map(
      atEachStage((raw, { vmId }) => raw.notify(vmId, 1n)),
      (results) =>
        assert.deepStrictEqual(results, {
          created: EPERM,
          "with page": 0,
          running: 0,
          "paused fresh": 0,
          paused: 0,
          reset: 0,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("VM_SET_MEMORY_REGIONS: any VM", () =>
    Effect.map(
      atEachStage((raw, { page, vmId }) => raw.regions(vmId, [add(0x5000, page, 0x1000)])),
      (results) =>
        assert.deepStrictEqual(results, {
          created: 0,
          "with page": 0,
          running: 0,
          "paused fresh": 0,
          paused: 0,
          reset: 0,
          destroyed: EPERM,
          never: ENOTTY
        })
    ))

  it.effect("SET_IRQLINE: lines 0 to 15, high, low and the two pulses", () =>
    Effect.gen(function*() {
      const raw = yield* makeRaw
      const { vmId } = yield* vmAt(raw, "with page")
      for (const op of [0, 1, 2, 3]) assert.strictEqual(yield* raw.irq(vmId, 15, op), 0)
      assert.strictEqual(yield* raw.irq(vmId, 16, 0), EPERM)
      assert.strictEqual(yield* raw.irq(vmId, 0xffff_ffff, 0), EPERM)
      assert.strictEqual(yield* raw.irq(vmId, 0, 4), 0, "what is no operation does nothing")
      assert.strictEqual(yield* raw.irq(99, 0, 0), EPERM)
    }).pipe(onSimulated()))

  describe("CREATE_VM", () => {
    it.effect("gives ids from 1 on, one vCPU per affinity bit, and the freed id again", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        assert.deepStrictEqual(yield* raw.create(1n), { result: 0, vmId: 1, vcpus: 1 })
        assert.deepStrictEqual(yield* raw.create(0b1010_0000n), { result: 0, vmId: 2, vcpus: 2 })
        assert.deepStrictEqual(yield* raw.create(0xffffn), { result: 0, vmId: 3, vcpus: 16 })
        yield* raw.pause(2)
        yield* raw.destroy(2)
        assert.deepStrictEqual(yield* raw.create(1n), { result: 0, vmId: 2, vcpus: 1 })
      }).pipe(onSimulated()))

    it.effect("with no affinity gives the vCPUs that are configured", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        assert.deepStrictEqual(yield* raw.create(0n), { result: 0, vmId: 1, vcpus: 3 })
      }).pipe(onSimulated({ configuredVcpus: 3 })))

    it.effect("refuses more vCPUs than there are slots, and makes nothing", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        for (const affinity of [0x1_ffffn, 1n << 16n, 1n << 63n, 0xffff_ffff_ffff_ffffn]) {
          assert.deepStrictEqual(yield* raw.create(affinity), { result: EPERM, vmId: 0x1234, vcpus: 0 })
        }
        assert.strictEqual((yield* raw.create(1n)).vmId, 1)
      }).pipe(onSimulated()))

    it.effect("returns 0 and the VM id 0xFFFF when there is no room", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        yield* raw.create(1n)
        yield* raw.create(1n)
        assert.deepStrictEqual(yield* raw.create(1n), { result: 0, vmId: NO_VM, vcpus: 0 })
        yield* raw.pause(1)
        yield* raw.destroy(1)
        assert.deepStrictEqual(yield* raw.create(1n), { result: 0, vmId: 1, vcpus: 1 })
      }).pipe(onSimulated({ maxVms: 2 })))
  })

  describe("structures", () => {
    it.effect("that are not wholly memory are -EPERM, and -ENOTTY where they name the VM", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { vmId } = yield* raw.create(1n)
        const end = BigInt(raw.scratch) + 0x2000n
        const bad = [NOWHERE, 0n, end, end - 8n + 4n, 1n << 52n, (1n << 64n) - 1n, (1n << 64n) - 4096n]
        for (const address of bad) {
          const by1 = [HypercallId.CreateVm, HypercallId.SetMemoryRegions]
          const by2 = [HypercallId.SetVcpuRegs, HypercallId.SetIoRequestBuffer]
          for (const id of by1) assert.strictEqual(yield* raw.gate.call(id, address, 0n), ENOTTY)
          for (const id of by2) assert.strictEqual(yield* raw.gate.call(id, BigInt(vmId), address), EPERM)
        }
        assert.strictEqual((yield* raw.create(1n)).vmId, 2, "none of the bad calls created a VM")
      }).pipe(onSimulated()))

    it.effect("operations of a batch that lie outside memory are -EPERM", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { vmId } = yield* vmAt(raw, "with page")
        const end = (yield* raw.newPage()) + 0x1000
        const head = Result.getOrThrow(
          MemoryRegionBatch.encode({ vmid: vmId, regionsNum: 2, regionsGpa: BigInt(end - 32) })
        )
        assert.strictEqual(yield* raw.gate.call(HypercallId.SetMemoryRegions, raw.put(head), 0n), EPERM)
      }).pipe(onSimulated()))

    it.effect("a batch of 4 billion operations is refused without a look at them", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { vmId } = yield* raw.create(1n)
        const head = Result.getOrThrow(
          MemoryRegionBatch.encode({ vmid: vmId, regionsNum: 0xffff_ffff, regionsGpa: BigInt(raw.scratch) })
        )
        assert.strictEqual(yield* raw.gate.call(HypercallId.SetMemoryRegions, raw.put(head), 0n), EINVAL)
      }).pipe(onSimulated()))

    it.effect.prop("unknown ids are -ENOTTY and do nothing", [
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff })),
      Schema.Int
    ], ([number, any]) =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const known = Object.values(HypercallId)
        for (const id of [fromNumber(number), any, any >>> 0]) {
          if (!known.includes(id)) assert.strictEqual(yield* raw.gate.call(id, 1n, 0n), ENOTTY)
        }
        assert.strictEqual((yield* raw.create(1n)).vmId, 1)
      }).pipe(onSimulated()), { arbitrary: { runs: 30 } })
  })

  describe("SET_VCPU_REGS", () => {
    it.effect("checks the vCPU and the control registers as ACRN does", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { vmId } = yield* vmAt(raw, "with page")
        assert.strictEqual(yield* raw.setRegisters(vmId, 1, flat), 0)
        assert.strictEqual(yield* raw.setRegisters(vmId, 2, flat), EPERM, "ACRN 36f6a412b")
        assert.strictEqual(yield* raw.setRegisters(vmId, 0xffff, flat), EPERM)
        assert.strictEqual(yield* raw.setRegisters(vmId, 0, { ...flat, cr0: 0x11n }), EPERM, "CR0.NE is clear")
        assert.strictEqual(yield* raw.setRegisters(vmId, 0, { ...flat, cr0: flat.cr0 | 1n << 40n }), EPERM)
        assert.strictEqual(yield* raw.setRegisters(vmId, 0, { ...flat, cr4: 1n << 13n }), EPERM, "CR4.VMXE")
        const state = yield* VcpuState
        assert.deepStrictEqual(yield* state.read(vmId, 0), flat, "a refusal changes nothing")
      }).pipe(onSimulated()))
  })

  describe("SET_IOREQ_BUFFER", () => {
    it.effect("frees all sixteen slots, whatever the page held", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { page, vmId } = yield* vmAt(raw, "created")
        assert.deepStrictEqual(raw.states(page), Array.from({ length: 16 }, () => 0), "a zero page reads as PENDING")
        yield* raw.setPage(vmId, BigInt(page))
        assert.deepStrictEqual(raw.states(page), ALL_FREE)
      }).pipe(onSimulated()))

    it.effect("with a bad address takes the old page away", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        for (const bad of [NOWHERE, 0n, BigInt(raw.scratch) + 8n, 1n << 52n, (1n << 64n) - 4096n]) {
          const { page, vmId } = yield* vmAt(raw, "with page")
          assert.strictEqual(yield* raw.setPage(vmId, bad), EPERM)
          assert.strictEqual(yield* raw.start(vmId), EPERM)
          assert.strictEqual(yield* raw.notify(vmId, 0n), EPERM)
          assert.strictEqual(yield* raw.setPage(vmId, BigInt(page)), 0)
          assert.strictEqual(yield* raw.start(vmId), 0)
        }
      }).pipe(onSimulated()))

    it.effect("RESET_VM frees the slots and keeps the page", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { page, vmId } = yield* vmAt(raw, "paused")
        const view = Result.getOrThrow(raw.memory.page(page))
        for (let slot = 0; slot < 16; slot++) view.store32(slot * 256 + 136, slot % 4)
        yield* raw.reset(vmId)
        assert.deepStrictEqual(raw.states(page), ALL_FREE)
        assert.strictEqual(yield* raw.start(vmId), 0)
      }).pipe(onSimulated()))
  })

  describe("NOTIFY_REQUEST_FINISH", () => {
    it.effect("takes the low 16 bits of the vCPU id, and only vCPUs that exist", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { vmId } = yield* vmAt(raw, "with page")
        const results = yield* Effect.forEach([0n, 1n, 2n, 16n, 0xffffn, 0x1_0001n, 0xffff_0000n, 1n << 63n], (vcpu) =>
          raw.notify(vmId, vcpu))
        assert.deepStrictEqual(results, [0, 0, EPERM, EPERM, EPERM, 0, 0, 0])
      }).pipe(onSimulated()))

    it.effect.prop("its synchronous form gives the same results, for any numbers", [
      Schema.Union([Schema.Literals([-1, 0, 1, 2, 16, 0xffff, 0x1_0000, 0x1_0001, -65_536]), Schema.Int]),
      Schema.Union([Schema.Literals([0, 1, 2, 0x1_0001, -1]), Schema.Int])
    ], ([vcpu, vm]) =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        yield* vmAt(raw, "with page")
        assert.strictEqual(
          raw.gate.notifyFinish(vm, vcpu),
          yield* raw.gate.call(HypercallId.NotifyRequestFinish, BigInt(vm), BigInt(vcpu))
        )
      }).pipe(onSimulated()), { arbitrary: { runs: 60 } })

    it.effect("wakes no vCPU whose slot is not COMPLETE", () =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const { page, vmId } = yield* vmAt(raw, "with page")
        const ram = (yield* raw.memory.allocate({ bytes: 0x10_000, purpose: { _tag: "GuestRam", vmId } })).address
        yield* raw.regions(vmId, [add(0, ram, 0x10_000)])
        raw.put(g.code(g.inp(0x80), g.stop), ram + 0x1000)
        yield* raw.start(vmId)
        yield* Effect.repeat(Effect.yieldNow, { times: 5 })
        assert.strictEqual(raw.states(page)[0], 0, "nobody answers: the slot stays PENDING")
        for (const state of [0, 2]) {
          Result.getOrThrow(raw.memory.page(page)).store32(136, state)
          assert.strictEqual(raw.gate.notifyFinish(vmId, 0), 0)
          yield* Effect.repeat(Effect.yieldNow, { times: 5 })
          assert.strictEqual(raw.states(page)[0], state)
        }
        Result.getOrThrow(raw.memory.page(page)).store32(136, 1)
        raw.gate.notifyFinish(vmId, 0)
        yield* Effect.repeat(Effect.yieldNow, { times: 5 })
        assert.strictEqual(raw.states(page)[0], FREE, "COMPLETE and notified: the vCPU took it")
      }).pipe(onSimulated()))
  })

  describe("VM_SET_MEMORY_REGIONS", () => {
    /** What the guest reads at each address, by running it. 0xffffffff is a hole, for nobody answers. */
    const guestReads = (raw: Raw, vmId: number, ram: number, addresses: ReadonlyArray<number>) =>
      Effect.gen(function*() {
        raw.put(
          g.code(...addresses.flatMap((address, i) => [g.load(address), g.store(0x2000 + 4 * i)]), g.stop),
          ram + 0x1000
        )
        yield* raw.setRegisters(vmId, 0, flat)
        yield* raw.start(vmId)
        const view = Result.getOrThrow(raw.memory.page((yield* pageOf(raw, vmId)).address))
        for (let i = 0; i < 200; i++) {
          yield* Effect.yieldNow
          if (view.load32(136) !== 0) continue
          view.store32(64 + 24, -1)
          view.store32(136, 1)
          raw.gate.notifyFinish(vmId, 0)
        }
        yield* raw.pause(vmId)
        yield* raw.reset(vmId)
        const read = raw.get(4 * addresses.length, ram + 0x2000)
        const words = new DataView(read.buffer)
        return addresses.map((_, i) => words.getUint32(4 * i, true))
      })

    const pages = new Map<number, { readonly address: number }>()
    const pageOf = (raw: Raw, vmId: number) =>
      Effect.gen(function*() {
        const known = pages.get(vmId)
        if (known !== undefined) return known
        const address = yield* raw.newPage()
        yield* raw.setPage(vmId, BigInt(address))
        pages.set(vmId, { address })
        return { address }
      })

    /** A VM with code and results in RAM at 0, and four service pages that begin with 0xa0a0a0a0, 0xa1a1a1a1, ... */
    const prepared = Effect.gen(function*() {
      pages.clear()
      const raw = yield* makeRaw
      const { vmId } = yield* raw.create(1n)
      yield* pageOf(raw, vmId)
      const allocate = (bytes: number) =>
        Effect.map(raw.memory.allocate({ bytes, purpose: { _tag: "GuestRam", vmId } }), ({ address }) => address)
      const ram = yield* allocate(0x4000)
      yield* raw.regions(vmId, [add(0, ram, 0x4000)])
      const data = yield* allocate(0x4000)
      for (let i = 0; i < 4; i++) raw.put(new Uint8Array(4).fill(0xa0 + i), data + i * 0x1000)
      return { raw, vmId, ram, data, reads: (...at: ReadonlyArray<number>) => guestReads(raw, vmId, ram, at) }
    })
    const HOLE = 0xffff_ffff

    it.effect("the guest sees the bytes of the service pages that stand behind its own (law 18)", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        // In reverse order, one by one.
        yield* raw.regions(vmId, [0, 1, 2].map((i) => add(0x10_0000 + i * 0x1000, data + (2 - i) * 0x1000, 0x1000)))
        assert.deepStrictEqual(yield* reads(0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000), [
          0xa2a2_a2a2,
          0xa1a1_a1a1,
          0xa0a0_a0a0,
          HOLE
        ])
      }).pipe(onSimulated()))

    it.effect("an empty batch is -EPERM", () =>
      Effect.gen(function*() {
        const { raw, vmId } = yield* prepared
        assert.strictEqual(yield* raw.regions(vmId, []), EPERM)
      }).pipe(onSimulated()))

    it.effect("a size that is no multiple of a page is -EINVAL", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        for (const size of [1, 0xfff, 0x1001, 0x1800]) {
          assert.strictEqual(yield* raw.regions(vmId, [add(0x10_0000, data, size)]), EINVAL)
          assert.strictEqual(yield* raw.regions(vmId, [add(0, data, size, 2)]), EINVAL)
        }
        assert.deepStrictEqual(yield* reads(0x10_0000), [HOLE])
      }).pipe(onSimulated()))

    it.effect("a batch keeps the operations before the one that is refused, and does none after it", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        assert.strictEqual(
          yield* raw.regions(vmId, [
            add(0x10_0000, data, 0x1000),
            add(0x10_1000, data, 0x1001),
            add(0x10_2000, data, 0x1000)
          ]),
          EINVAL
        )
        assert.deepStrictEqual(yield* reads(0x10_0000, 0x10_1000, 0x10_2000), [0xa0a0_a0a0, HOLE, HOLE])
      }).pipe(onSimulated()))

    it.effect("adding over a mapped page keeps the old page and succeeds", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        assert.strictEqual(yield* raw.regions(vmId, [add(0x10_1000, data, 0x1000)]), 0)
        assert.strictEqual(yield* raw.regions(vmId, [add(0x10_0000, data + 0x1000, 0x3000)]), 0)
        assert.deepStrictEqual(yield* reads(0x10_0000, 0x10_1000, 0x10_2000), [
          0xa1a1_a1a1,
          0xa0a0_a0a0,
          0xa3a3_a3a3
        ])
      }).pipe(onSimulated()))

    it.effect("every type but 0 deletes", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        for (const type of [1, 2, 3, 0xffff_ffff]) {
          yield* raw.regions(vmId, [add(0x10_0000, data, 0x2000)])
          assert.strictEqual(yield* raw.regions(vmId, [add(0x10_1000, 0, 0x1000, type)]), 0)
          assert.deepStrictEqual(yield* reads(0x10_0000, 0x10_1000), [0xa0a0_a0a0, HOLE])
        }
      }).pipe(onSimulated()))

    it.effect("deleting what is not wholly mapped is -EINVAL and removes nothing, however much of it there is", () =>
      Effect.gen(function*() {
        const { raw, reads, vmId } = yield* prepared
        const ends = [0x4000 + 0x1000, 2 ** 51, 2 ** 52]
        for (const end of ends) {
          assert.strictEqual(yield* raw.regions(vmId, [add(0x3000, 0, end - 0x3000, 2)]), EINVAL)
        }
        assert.deepStrictEqual(yield* reads(0x3000), [0], "what is mapped is still there")
        assert.strictEqual(yield* raw.regions(vmId, [add(0x3000, 0, 0x1000, 2)]), 0)
        assert.deepStrictEqual(yield* reads(0x3000), [HOLE])
        assert.strictEqual(yield* raw.regions(vmId, [add(0x3000, 0, 0x1000, 2)]), EINVAL, "it is gone already")
        assert.strictEqual(yield* raw.regions(vmId, [add(0x10_0000, 0, 0, 2)]), 0, "no page at all")
      }).pipe(onSimulated()))

    it.effect("a page without any right is not mapped: another can take its place", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        assert.strictEqual(yield* raw.regions(vmId, [add(0x10_0000, data, 0x1000, 0, 0x40)]), 0)
        assert.strictEqual(yield* raw.regions(vmId, [add(0x10_0000, 0, 0x1000, 2)]), EINVAL)
        assert.strictEqual(yield* raw.regions(vmId, [add(0x10_0000, data + 0x1000, 0x1000)]), 0)
        assert.deepStrictEqual(yield* reads(0x10_0000), [0xa1a1_a1a1])
      }).pipe(onSimulated()))

    it.effect("operations that continue each other are refused no earlier for it", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        // The last page of the batch is the first that is no memory; two of the four deletions find a page.
        const added = [0, 1, 2, 3, 4].map((i) => add(0x10_0000 + i * 0x1000, data + i * 0x1000, 0x1000))
        assert.strictEqual(yield* raw.regions(vmId, added), EINVAL)
        assert.deepStrictEqual(yield* reads(0x10_0000, 0x10_3000, 0x10_4000), [0xa0a0_a0a0, 0xa3a3_a3a3, HOLE])
        const gone = [2, 3, 4, 5].map((i) => add(0x10_0000 + i * 0x1000, 0, 0x1000, 2))
        assert.strictEqual(yield* raw.regions(vmId, gone), EINVAL)
        assert.deepStrictEqual(yield* reads(0x10_1000, 0x10_2000, 0x10_3000), [0xa1a1_a1a1, HOLE, HOLE])
      }).pipe(onSimulated()))

    it.effect("service pages that are not there, or addresses that are none, are refused", () =>
      Effect.gen(function*() {
        const { data, raw, reads, vmId } = yield* prepared
        const bad = [
          add(0x10_0000, Number(NOWHERE), 0x1000),
          add(0x10_0000, data, 0x40_0000),
          { ...add(0x10_0000, 0, 0x1000), serviceVmPa: (1n << 64n) - 4096n },
          { ...add(0, data, 0x1000), userVmPa: 1n << 52n },
          { ...add(0, data, 0x1000), userVmPa: (1n << 64n) - 4096n },
          { ...add(0x10_0000, data, 0), size: (1n << 64n) - 4096n },
          { ...add(0x10_0000, data, 0, 2), size: (1n << 64n) - 4096n }
        ]
        for (const operation of bad) assert.strictEqual(yield* raw.regions(vmId, [operation]), EINVAL)
        assert.deepStrictEqual(yield* reads(0x10_0000), [HOLE])
      }).pipe(onSimulated()))
  })

  describe("capabilities", () => {
    it.effect("Resume runs on only what ran before", () =>
      Effect.gen(function*() {
        const resume = yield* Resume
        const raw = yield* makeRaw
        const results: Record<string, number> = {}
        for (const stage of ["created", "with page", "running", "paused fresh", "paused", "reset"] as const) {
          const { vmId } = yield* vmAt(raw, stage)
          results[stage] = yield* resume.resume(vmId)
        }
        assert.deepStrictEqual(results, {
          created: EPERM,
          "with page": EPERM,
          running: EPERM,
          "paused fresh": EPERM,
          paused: 0,
          reset: EPERM
        })
        assert.strictEqual(yield* resume.resume(99), EPERM)
      }).pipe(onSimulated()))

    it.effect("VcpuState reads what was set, and nothing of a running VM or of a vCPU that is not there", () =>
      Effect.gen(function*() {
        const state = yield* VcpuState
        const raw = yield* makeRaw
        const { vmId } = yield* vmAt(raw, "with page")
        assert.deepStrictEqual(yield* state.read(vmId, 0), flat)
        for (const vcpu of [-1, 2, 0.5, NaN, 16]) assert.isUndefined(yield* state.read(vmId, vcpu))
        assert.isUndefined(yield* state.read(99, 0))
        yield* raw.start(vmId)
        assert.isUndefined(yield* state.read(vmId, 0))
      }).pipe(onSimulated()))

    it.effect("IrqLines ignores lines and VMs that are not there", () =>
      Effect.gen(function*() {
        const lines = yield* IrqLines
        const raw = yield* makeRaw
        const { vmId } = yield* vmAt(raw, "with page")
        const ram = (yield* raw.memory.allocate({ bytes: 0x10_000, purpose: { _tag: "GuestRam", vmId } })).address
        yield* raw.regions(vmId, [add(0, ram, 0x10_000)])
        // Every vector leads to a handler that marks memory.
        raw.put(g.code(...Array.from({ length: 64 }, () => g.gate(0x3000))), ram + 0x4000)
        raw.put(g.code(g.tablePointer(0x4000, 64)), ram + 0x5000)
        raw.put(g.code(g.storeImmediate(0x6000, 1), g.stop), ram + 0x3000)
        raw.put(g.code(g.lidt(0x5000), g.programPics(0x20, 0x28, [0, 0]), g.sti, g.forever(g.nop)), ram + 0x1000)
        yield* raw.setRegisters(vmId, 0, flat)
        lines.set(99, 0, true)
        yield* raw.start(vmId)
        yield* Effect.repeat(Effect.yieldNow, { times: 3 })
        for (const line of [-1, lines.count, lines.count + 1, 31, 32, 0.5, NaN, 2 ** 31]) {
          lines.set(vmId, line, false)
          lines.set(vmId, line, true)
        }
        yield* Effect.repeat(Effect.yieldNow, { times: 3 })
        assert.deepStrictEqual(raw.get(1, ram + 0x6000), Uint8Array.of(0))
        lines.set(vmId, 0, true)
        yield* Effect.repeat(Effect.yieldNow, { times: 3 })
        assert.deepStrictEqual(raw.get(1, ram + 0x6000), Uint8Array.of(1))
      }).pipe(onSimulated()))
  })
})
