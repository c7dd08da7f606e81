/** Interrupts as a guest sees them: through its IDT, its interrupt controllers and its flags. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ports } from "../../../src/domain/IoRange.ts"
import { IrqLines } from "../../../src/services/Hypervisor.ts"
import type { CreatedVm } from "../../../src/services/Vm.ts"
import * as g from "../../support/guest.ts"
import { boot, ENTRY, onSimulated, recorder, runToEnd, turns } from "../../support/machines.ts"

const IDT = 0x8000
const IDT_POINTER = 0x9000
const VECTORS = 0x30
/** Writing line * 2 + high to this port drives a line. */
const DRIVER = 0x100
/** What guests and their handlers write to, to be seen. */
const LOG = 0x200

const drive = (line: number, high = true): g.Code => g.out(DRIVER, line * 2 + (high ? 1 : 0))
const log = (value: number): g.Code => g.out(LOG, value)

const keeping = (...body: ReadonlyArray<g.Code>): g.Code => [0x60, ...body.flat(), 0x61, ...g.iret]

/** A handler that writes its vector, and tells the controllers that it is done. */
const handler = (vector: number, ...more: ReadonlyArray<g.Code>): g.Code =>
  keeping(
    log(vector),
    ...more,
    ...(vector >= 0x28 ? [g.endOfInterrupt(0xa0)] : []),
    g.endOfInterrupt()
  )

/** A VM with handlers for these vectors, a program, and every line unmasked; and what it writes to the log. */
const machine = (handlers: ReadonlyArray<readonly [vector: number, code: g.Code]>, ...program: ReadonlyArray<g.Code>) =>
  Effect.gen(function*() {
    const irq = yield* IrqLines
    const vm = yield* boot(g.code(g.lidt(IDT_POINTER), g.programPics(0x20, 0x28, [0, 0]), ...program, g.stop))
    yield* vm.memory.write(IDT_POINTER, g.code(g.tablePointer(IDT, VECTORS)))
    for (const [i, [vector, code]] of handlers.entries()) {
      const at = 0x4000 + i * 0x400
      yield* vm.memory.write(at, g.code(code))
      yield* vm.memory.write(IDT + vector * 8, g.code(g.gate(at)))
    }
    yield* vm.io.register({
      name: "driver",
      ranges: [ports(DRIVER, DRIVER)],
      handle: (request) =>
        Effect.sync(() => {
          if ("value" in request) irq.set(vm.id, Number(request.value) >> 1, (Number(request.value) & 1) === 1)
        })
    })
    const seen = yield* recorder(vm, { name: "log", ranges: [ports(LOG, LOG)] })
    return { vm, written: () => seen.map((request) => "value" in request ? Number(request.value) : -1) }
  })

const run = (handlers: ReadonlyArray<readonly [number, g.Code]>, ...program: ReadonlyArray<g.Code>) =>
  Effect.gen(function*() {
    const { vm, written } = yield* machine(handlers, ...program)
    assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
    return written()
  }).pipe(onSimulated())

const plain = (...vectors: ReadonlyArray<number>) => vectors.map((vector) => [vector, handler(vector)] as const)

describe("interrupts", () => {
  it.effect("wait while they are off, and come by priority when they are on", () =>
    Effect.gen(function*() {
      const written = yield* run(
        plain(0x21, 0x24, 0x2a),
        drive(4),
        drive(10),
        drive(1),
        log(1),
        g.sti,
        g.nop,
        g.nop,
        g.cli,
        log(2)
      )
      assert.deepStrictEqual(written, [1, 0x21, 0x2a, 0x24, 2])
    }))

  it.effect("come one instruction after STI, not before it", () =>
    Effect.gen(function*() {
      // With EDX and EAX set before, the instruction after STI is the OUT itself.
      const written = yield* run(plain(0x24), drive(4), g.mov(g.Reg.edx, LOG), g.mov(g.Reg.eax, 1), g.sti, [0xee], [
        0xee
      ])
      assert.deepStrictEqual(written, [1, 0x24, 1])
    }))

  it.effect("never come between STI and CLI", () =>
    Effect.map(
      run(plain(0x24), drive(4), g.sti, g.cli, g.nop, log(1)),
      (written) => assert.deepStrictEqual(written, [1])
    ))

  it.effect("are not lost between STI and HLT", () =>
    Effect.map(
      run(plain(0x24), drive(4), g.sti, g.hlt, g.cli, log(1)),
      (written) => assert.deepStrictEqual(written, [0x24, 1])
    ))

  it.effect("of a line that is driven outside wake a vCPU that halted", () =>
    Effect.gen(function*() {
      const irq = yield* IrqLines
      const { vm, written } = yield* machine(plain(0x24), g.sti, g.hlt, g.cli, log(1))
      const running = yield* vm.start
      yield* turns(5)
      assert.deepStrictEqual(written(), [])
      irq.set(vm.id, 4, true)
      yield* running.ended
      assert.deepStrictEqual(written(), [0x24, 1])
    }).pipe(onSimulated()))

  it.effect("that are more urgent nest in a handler that lets them, others wait for its end", () =>
    Effect.gen(function*() {
      const nesting = keeping(
        log(0x24),
        drive(6),
        drive(1),
        g.sti,
        g.nop,
        log(0xe4),
        g.cli,
        g.endOfInterrupt()
      )
      const written = yield* run(
        [[0x24, nesting], ...plain(0x21, 0x26)],
        drive(4),
        g.sti,
        g.nop,
        g.nop,
        g.cli,
        log(1)
      )
      assert.deepStrictEqual(written, [0x24, 0x21, 0xe4, 0x26, 1])
    }))

  it.effect("of a masked line wait for the mask", () =>
    Effect.gen(function*() {
      const written = yield* run(
        plain(0x24),
        g.out(0x21, 0x10),
        drive(4),
        g.sti,
        g.nop,
        log(1),
        g.out(0x21, 0),
        g.nop,
        log(2)
      )
      assert.deepStrictEqual(written, [1, 0x24, 2])
    }))

  it.effect("restore the flags that they found", () =>
    Effect.gen(function*() {
      // CMP EAX, EAX sets the zero flag; the handler's own arithmetic clears it; JZ still jumps over the log.
      const clears = keeping(log(0x24), g.mov(g.Reg.eax, 1), [0x83, 0xc0, 0x01], g.endOfInterrupt())
      const written = yield* run(
        [[0x24, clears]],
        drive(4),
        [0x39, 0xc0],
        g.sti,
        g.nop,
        g.nop,
        g.cli,
        [0x74, log(0).length],
        log(9),
        log(1)
      )
      assert.deepStrictEqual(written, [0x24, 1])
    }))

  it.effect("by INT n come at once, interrupts off or on", () =>
    Effect.map(
      run([[0x2f, keeping(log(0x2f))]], [0xcd, 0x2f], log(1)),
      (written) => assert.deepStrictEqual(written, [0x2f, 1])
    ))

  it.effect("without a gate shut the vCPU down", () =>
    Effect.gen(function*() {
      const { vm } = yield* machine([], drive(4), g.sti, g.nop, g.nop)
      assert.deepStrictEqual<unknown>(yield* runToEnd(vm), {
        _tag: "Shutdown",
        vcpu: 0,
        cause: "interrupt 36 has no 32-bit gate in the IDT"
      })
    }).pipe(onSimulated()))

  it.effect("do not outlive a reset", () =>
    Effect.gen(function*() {
      const { vm, written } = yield* machine(plain(0x24), drive(4), log(1))
      const running = yield* vm.start
      yield* running.ended
      const again: CreatedVm = yield* (yield* running.pause).reset
      yield* again.memory.write(
        ENTRY,
        g.code(g.lidt(IDT_POINTER), g.programPics(0x20, 0x28, [0, 0]), g.sti, g.nop, g.nop, g.stop)
      )
      assert.deepStrictEqual(yield* runToEnd(again), { _tag: "Halted" })
      assert.deepStrictEqual(written(), [1])
    }).pipe(onSimulated()))
})
