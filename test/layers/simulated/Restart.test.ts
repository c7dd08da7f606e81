/**
 * An instruction whose access waits for a device is given up and executed again: its accesses must still reach each
 * device once, whatever comes in between.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { mmio, ports } from "../../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import { IrqLines } from "../../../src/services/Hypervisor.ts"
import type { Vm } from "../../../src/services/Vm.ts"
import * as g from "../../support/guest.ts"
import { boot, brief, ENTRY, onSimulated, recorder, runToEnd, STACK, turns } from "../../support/machines.ts"

const DATA = 0x8000
const SLOW = 0xf000_0000
const FAST = 0xf100_0000

/** A device that answers each request with a number of its own, after a while; `0` is at once. */
const device = (vm: Vm, name: string, start: number, delays: ReadonlyArray<number>) =>
  Effect.gen(function*() {
    const seen: Array<IoRequest> = []
    yield* vm.io.register({
      name,
      ranges: [mmio(start, start + 0xfff), ...(start === SLOW ? [ports(0x100, 0x1ff)] : [])],
      handle: (request): Effect.Effect<IoValue> => {
        const delay = delays[seen.length % delays.length]!
        seen.push(request)
        const value = 0x10 + seen.length
        return delay === 0 ? Effect.succeed(value) : Effect.as(Effect.sleep(delay), value)
      }
    })
    return seen
  })

const delays = Schema.Array(Schema.Literals([0, 1])).check(Schema.isBetweenLength(1, 4))

describe("instruction restart", () => {
  // Each row: an instruction with several accesses, and the requests that it is, in order.
  const rows: ReadonlyArray<readonly [name: string, code: g.Code, requests: ReadonlyArray<string>]> = [
    ["ADD [m], imm", g.addImmediate(SLOW, 5), ["r4 mmio f0000000", "w4 mmio f0000000 16"]],
    ["XCHG [m], EBX", [0x87, 0x1d, 0, 0, 0, 0xf0], ["r4 mmio f0000000", "w4 mmio f0000000 77"]],
    ["INC BYTE [m]", [0xfe, 0x05, 4, 0, 0, 0xf0], ["r1 mmio f0000004", "w1 mmio f0000004 12"]],
    ["NOT DWORD [m]", [0xf7, 0x15, 0, 0, 0, 0xf0], ["r4 mmio f0000000", "w4 mmio f0000000 ffffffee"]],
    ["SHL DWORD [m], 4", [0xc1, 0x25, 0, 0, 0, 0xf0, 4], ["r4 mmio f0000000", "w4 mmio f0000000 110"]],
    ["REP MOVSD", g.repMove(SLOW, SLOW + 0x10, 2, 4), [
      "r4 mmio f0000000",
      "w4 mmio f0000010 11",
      "r4 mmio f0000004",
      "w4 mmio f0000014 13"
    ]],
    ["REP INSB to MMIO", g.repIn(0x100, SLOW, 2, 1), [
      "r1 port 100",
      "w1 mmio f0000000 11",
      "r1 port 100",
      "w1 mmio f0000001 13"
    ]],
    ["REP OUTSW from MMIO", g.repOut(0x100, SLOW, 2, 2), [
      "r2 mmio f0000000",
      "w2 port 100 11",
      "r2 mmio f0000002",
      "w2 port 100 13"
    ]]
  ]

  for (const [name, instruction, requests] of rows) {
    it.effect.prop(
      `${name}: each access arrives once, however slow the answers are`,
      [delays],
      ([slow]) =>
        Effect.gen(function*() {
          const vm = yield* boot(g.code(g.mov(g.Reg.ebx, 0x77), instruction, g.stop))
          const seen = yield* device(vm, "slow", SLOW, slow)
          assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
          assert.deepStrictEqual(seen.map(brief), requests)
        }).pipe(onSimulated()),
      { arbitrary: { runs: 12 } }
    )
  }

  for (const [name, prepare, sum] of [["CLC", 0xf8, 0], ["STC", 0xf9, 1]] as const) {
    it.effect(`ADC after ${name} uses the carry from before, not from the attempt that waited`, () =>
      Effect.gen(function*() {
        // 0x11 + 0xffffffef + carry is the carry, with a carry; JZ then leaves EAX 0.
        const vm = yield* boot(g.code(
          g.mov(g.Reg.eax, 0),
          [prepare],
          [0x81, 0x15, 0, 0, 0, 0xf0, 0xef, 0xff, 0xff, 0xff],
          [0x74, 0x05],
          g.mov(g.Reg.eax, 1),
          g.store(DATA),
          g.stop
        ))
        const seen = yield* device(vm, "slow", SLOW, [1])
        yield* runToEnd(vm)
        assert.deepStrictEqual(seen.map(brief), ["r4 mmio f0000000", `w4 mmio f0000000 ${sum}`])
        assert.strictEqual(yield* vm.memory.read32(DATA), sum)
      }).pipe(onSimulated()))
  }

  /** A guest that does `body` with interrupts on; its handler for line 4 stores to FAST, and reads its port. */
  const interruptible = (...body: ReadonlyArray<g.Code>) => {
    const handlerAt = ENTRY + 0x800
    const handler = g.code(
      [0x50, 0x52],
      g.inp(0x300),
      g.storeImmediate(FAST, 0x1111),
      g.endOfInterrupt(),
      [0x5a, 0x58],
      g.iret
    )
    const main = g.code(
      g.lidt(DATA + 0x800),
      g.programPics(0x20, 0x28, [0xef, 0xff]),
      g.sti,
      ...body,
      g.stop
    )
    return { handlerAt, handler, main }
  }

  const bootInterruptible = (...body: ReadonlyArray<g.Code>) =>
    Effect.gen(function*() {
      const { handler, handlerAt, main } = interruptible(...body)
      const vm = yield* boot(main)
      yield* vm.memory.write(handlerAt, handler)
      yield* vm.memory.write(DATA + 0x800, g.code(g.tablePointer(DATA, 0x30)))
      yield* vm.memory.write(DATA + 0x24 * 8, g.code(g.gate(handlerAt)))
      return vm
    })

  const interruptDuring: ReadonlyArray<readonly [name: string, code: g.Code, requests: ReadonlyArray<string>]> = [
    ["IN", g.inp(0x100), ["r1 port 100"]],
    ["OUT", g.out(0x100, 0x55), ["w1 port 100 55"]],
    ["MOV EAX, [m]", g.load(SLOW), ["r4 mmio f0000000"]],
    ["ADD [m], imm", g.addImmediate(SLOW, 1), ["r4 mmio f0000000", "w4 mmio f0000000 12"]],
    ["REP INSB to MMIO", g.repIn(0x100, SLOW, 2, 1), [
      "r1 port 100",
      "w1 mmio f0000000 11",
      "r1 port 100",
      "w1 mmio f0000001 13"
    ]]
  ]

  for (const [name, instruction, requests] of interruptDuring) {
    it.effect(`${name}: an interrupt that comes while it waits is taken after it, and loses or repeats nothing`, () =>
      Effect.gen(function*() {
        const vm = yield* bootInterruptible(instruction, g.store(DATA + 0x400))
        const irq = yield* IrqLines
        const seen: Array<IoRequest> = []
        yield* vm.io.register({
          name: "raises its line while it is asked",
          ranges: [mmio(SLOW, SLOW + 0xfff), ports(0x100, 0x1ff)],
          handle: (request) =>
            Effect.gen(function*() {
              seen.push(request)
              const value = 0x10 + seen.length
              yield* Effect.sleep(1)
              irq.set(vm.id, 4, true)
              irq.set(vm.id, 4, false)
              return value
            })
        })
        const inHandler = yield* recorder(vm, {
          ranges: [mmio(FAST, FAST + 0xfff), ports(0x300, 0x300)],
          answer: () => 0x99
        })
        assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
        assert.deepStrictEqual(seen.map(brief), requests)
        // Handlers and interrupts alternate; the handler's own accesses reach their own devices.
        assert.isAtLeast(inHandler.length, 2)
        assert.deepStrictEqual(
          inHandler.map(brief),
          Array.from({ length: inHandler.length / 2 }, () => ["r1 port 300", "w4 mmio f1000000 1111"]).flat()
        )
      }).pipe(onSimulated()))
  }

  it.effect("an interrupt whose stack is no writable memory is a shutdown, not a half-made frame", () =>
    Effect.gen(function*() {
      const vm = yield* bootInterruptible(g.inp(0x100))
      const irq = yield* IrqLines
      yield* vm.mapMemory({
        guestAddress: 0x10_0000,
        bytes: 0x1000,
        rights: { read: true, write: false, execute: false }
      })
      yield* vm.setRegisters(0, VcpuRegisters.flat32({ entry: ENTRY, stack: 0x10_1000 }))
      yield* vm.io.register({
        name: "raises",
        ranges: [ports(0x100, 0x100)],
        handle: () => Effect.sync(() => irq.set(vm.id, 4, true))
      })
      const seen = yield* recorder(vm, { ranges: [mmio(0x10_0000, 0x10_0fff)] })
      const end = yield* runToEnd(vm)
      assert.strictEqual(end._tag, "Shutdown")
      assert.deepStrictEqual(seen, [])
    }).pipe(onSimulated()))

  it.effect("registers set while a request waits start afresh: its late answer is nobody's", () =>
    Effect.gen(function*() {
      const vm = yield* boot(g.code(g.inp(0x100), g.stop))
      const seen = yield* recorder(vm, { answer: () => 0xaa, ranges: [ports(0x100, 0x100)] })
      const fresh = yield* recorder(vm, { name: "fresh", ranges: [ports(0x180, 0x180)], answer: () => 0x42 })
      // The request comes while the dispatcher takes none, so the pause finds it PENDING.
      yield* vm.io.drain()
      const running = yield* vm.start
      yield* turns()
      const paused = yield* running.pause
      assert.deepStrictEqual(seen, [])
      yield* paused.memory.write(ENTRY, g.code([0xec], g.store(DATA), g.stop))
      yield* paused.setRegisters(0, VcpuRegisters.flat32({ entry: ENTRY, stack: STACK, gprs: { rdx: 0x180n } }))
      const again = yield* paused.resume
      yield* again.ended
      assert.deepStrictEqual([seen, fresh].map((requests) => requests.map(brief)), [["r1 port 100"], ["r1 port 180"]])
      assert.strictEqual(yield* vm.memory.read32(DATA), 0x42)
    }).pipe(onSimulated()))
})
