/** Memory that the guest may read and execute, whose writes reach the client that owns the addresses. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mmio } from "../../../../src/domain/IoRange.ts"
import { readExecute } from "../../../../src/domain/MemoryRegion.ts"
import * as g from "../../../support/guest.ts"
import { boot, brief, onSimulated, recorder, runToEnd } from "../../../support/machines.ts"
import { onKvm, problem, skipped } from "./guests.ts"

const ROM = 0x10_0000
const COPY = 0x3000

/** Reads, writes, and reads again; the last byte of the first page is the first of an access that goes on in the next. */
const program = g.code(
  g.load(ROM),
  g.store(COPY),
  g.storeImmediate(ROM, 0xdead_beef),
  g.storeImmediate(ROM + 8, 0x12, 1),
  g.addImmediate(ROM + 4, 1),
  g.load(ROM),
  g.store(COPY + 4),
  g.stop
)

const run = Effect.gen(function*() {
  const vm = yield* boot(program)
  yield* vm.mapMemory({ guestAddress: ROM, bytes: 0x1000, rights: readExecute })
  yield* vm.memory.write(ROM, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
  const seen = yield* recorder(vm, { ranges: [mmio(ROM, ROM + 0xfff)], answer: () => 0x99 })
  const end = yield* runToEnd(vm)
  return {
    end: end._tag,
    seen: seen.map(brief),
    read: [...yield* vm.memory.read(COPY, 8)],
    rom: [...yield* vm.memory.read(ROM, 12)]
  }
})

const expected = {
  end: "Halted",
  seen: ["w4 mmio 100000 deadbeef", "w1 mmio 100008 12", "w4 mmio 100004 8070606"],
  read: [1, 2, 3, 4, 1, 2, 3, 4],
  rom: [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]
}

describe("read-only memory", () => {
  it.effect("gives the guest's writes to the client, on Simulated", () =>
    Effect.map(run.pipe(onSimulated()), (result) => assert.deepStrictEqual(result, expected)))

  it.live.skipIf(problem !== undefined)(`gives the guest's writes to the client, on KVM${skipped}`, () =>
    Effect.map(
      run.pipe(onKvm({ interruptController: "None" })),
      (result) => assert.deepStrictEqual(result, expected)
    ))
})
