/**
 * Xen commit b7e0d89788. A domain that was suspended just after an I/O request had been sent executed the instruction
 * again when it went on, and so sent the request again. A device that counts its reads had counted twice.
 *
 * Here the simulated vCPU also executes an instruction again when its answer had to be waited for, but it takes what was
 * answered from a log. Each access reaches its device once, with a pause and a resume at any point.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { mmio, ports } from "../../src/domain/IoRange.ts"
import type { CreatedVm, RunningVm } from "../../src/services/Vm.ts"
import * as g from "../support/guest.ts"
import { boot, onSimulated, turns } from "../support/machines.ts"

const DATA = 0x8000
const REGISTER = 0xd000_0000
const READS = 4

/** A device that counts its reads, takes a while to answer, and is dead once it was read far too often. */
const counter = (vm: CreatedVm) =>
  Effect.gen(function*() {
    const device = { reads: 0 }
    yield* vm.io.register({
      name: "counter",
      ranges: [ports(0x100, 0x103), mmio(REGISTER, REGISTER + 3)],
      handle: () =>
        Effect.suspend(() => {
          device.reads++
          return device.reads > 2 * READS ? Effect.never : Effect.as(Effect.sleep("10 micros"), device.reads)
        })
    })
    return device
  })

/** Pauses and resumes the VM again and again while its guest runs. */
const disturb = (vm: CreatedVm) =>
  Effect.gen(function*() {
    let running: RunningVm = yield* vm.start
    for (let i = 0; i < 40; i++) {
      yield* turns(i % 3)
      const pausing = yield* Effect.forkChild(running.pauseWithin("1 hour"), { startImmediately: true })
      yield* turns(20)
      // A dead device lets no pause through.
      if (pausing.pollUnsafe() === undefined) return yield* Fiber.interrupt(pausing)
      running = yield* (yield* Fiber.join(pausing)).resume
    }
  })

const words = (vm: CreatedVm) =>
  Effect.map(
    vm.memory.read(DATA, 4 * READS),
    (bytes) => Array.from({ length: READS }, (_, i) => new DataView(bytes.buffer).getUint32(4 * i, true))
  )

describe("Xen b7e0d89788: a read with a side effect is made twice", () => {
  for (
    const [name, read] of [["a port", g.inp(0x100, 4)], ["a register in memory", g.load(REGISTER)]] as const
  ) {
    it.effect(`${name} that counts its reads is read once per instruction, through pauses and resumes`, () =>
      Effect.gen(function*() {
        const vm = yield* boot(
          g.code(...Array.from({ length: READS }, (_, i) => [...read, ...g.store(DATA + 4 * i)]), g.stop)
        )
        const device = yield* counter(vm)
        yield* disturb(vm)
        assert.deepStrictEqual(yield* words(vm), [1, 2, 3, 4])
        assert.strictEqual(device.reads, READS)
      }).pipe(onSimulated()))
  }
})
