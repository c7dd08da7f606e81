/** 64-bit programs, run: the one hypervisor of ours that has such vCPUs is the machine's own. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../src/domain/Limits.ts"
import * as Kvm from "../../src/layers/Kvm.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as Law from "../../src/testing/Law.ts"
import { withRequestPages } from "../../src/testing/laws/over.ts"
import { wholeAccess } from "../../src/testing/laws/WholeAccess.ts"
import * as Trace from "../../src/testing/Trace.ts"
import { kvmProblem } from "../support/kvm.ts"
import { buildSimulated } from "./hypervisors.ts"
import { MMIO, PORTS, probes } from "./probe.ts"

// A guest that halts has ended: there is nothing that could wake it.
const kvmLayer = Kvm.layerWith({ interruptController: "None" })
const machines = VirtualMachine.layer.pipe(Layer.provideMerge(kvmLayer))
const problem = kvmProblem()
// Of the same size for both kinds of code: the probes have a range behind RAM.
const RAM = 0x2_0000

const ran = (operations: ReadonlyArray<GuestProgram.OperationInput>, mode: GuestProgram.Mode) =>
  GuestRun.run(Result.getOrThrow(GuestProgram.assemble(operations, { mode, memoryBytes: RAM })), probes)

const seen = ({ end, results, trace }: GuestRun.GuestRun) => ({
  end: end._tag,
  results: [...results],
  trace: Trace.inBytes(trace.entries).map(Trace.format)
})

/** Virtual machines that answer with the low word alone. */
const withoutHighWords = VirtualMachine.layer.pipe(
  Layer.provide(Layer.effect(
    ServiceMemory,
    Effect.map(ServiceMemory, (memory) =>
      withRequestPages(memory, (page) => ({
        ...page,
        store32: (offset, value) =>
          page.store32(offset, offset % SLOT_BYTES === Slot.REQUEST_VALUE_OFFSET + 4 ? 0 : value)
      })))
  ))
)

describe.skipIf(problem !== undefined)(
  `64-bit guest programs on KVM${problem === undefined ? "" : ` (skipped: ${problem})`}`,
  () => {
    it.live("do the same as 32-bit ones of the same operations, there and on Simulated", () =>
      Effect.gen(function*() {
        const simulated = yield* buildSimulated
        const kvm = yield* Layer.build(machines)
        const samples = yield* Generator.sample(
          Arbitraries.guestProgram({ ports: PORTS, mmio: MMIO }),
          { count: 30, seed: 2 }
        )
        for (const operations of samples) {
          const expected = seen(yield* Effect.provide(ran(operations, "Protected32"), simulated))
          assert.strictEqual(expected.end, "Halted")
          assert.deepStrictEqual(seen(yield* Effect.provide(ran(operations, "Protected32"), kvm)), expected)
          assert.deepStrictEqual(seen(yield* Effect.provide(ran(operations, "Long64"), kvm)), expected)
        }
      }))

    it.live("take 8 bytes at a time, at any place", () =>
      Effect.gen(function*() {
        const kvm = yield* Layer.build(machines)
        const value = 0x1122_3344_5566_7788n
        // In one page, over a page's end, over the end of RAM, and at the end of what a program can name.
        for (const address of [MMIO.start + 3, 0xe000_0ffd, RAM - 3, 0x1_0001]) {
          const { end, results, trace } = yield* Effect.provide(
            ran([
              { _tag: "Store", address, size: 8, value },
              { _tag: "Load", address: 0xe000_1020, size: 8 },
              { _tag: "Load", address, size: 8 },
              { _tag: "Keep", size: 8 },
              { _tag: "Load", address, size: 4 },
              { _tag: "Keep", size: 8 },
              { _tag: "Load", address: address + 4, size: 2 },
              { _tag: "Keep" }
            ], "Long64"),
            kvm
          )
          assert.strictEqual(end._tag, "Halted")
          const words = new DataView(results.buffer, results.byteOffset)
          assert.strictEqual(words.getBigUint64(0, true), value)
          assert.strictEqual(words.getBigUint64(8, true), 0x5566_7788n)
          assert.strictEqual(words.getUint32(16, true), 0x5566_3344)
          const first = trace.entries.find(({ _tag }) => _tag === "Answered")!.request
          const inOnePage = { _tag: "MmioWrite", vcpu: 0, address, size: 8, value }
          if (address === MMIO.start + 3) assert.deepStrictEqual<unknown>(first, inOnePage)
        }
      }))

    it.live("find an answer whose upper half is lost", () =>
      Effect.gen(function*() {
        const options = { runs: 100, machines: withoutHighWords }
        const outcome = yield* Law.check(wholeAccess, "kvm", kvmLayer, options)
        assert.strictEqual(outcome._tag, "Broken")
        if (outcome._tag === "Broken") assert.include(outcome.smallest, "load 8 bytes")
      }))
  }
)
