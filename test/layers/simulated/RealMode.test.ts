/** Real mode: 16-bit operands and addresses, segments that begin at 16 times their selector, and the vector table. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ports } from "../../../src/domain/IoRange.ts"
import type { IoValue } from "../../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import * as Emulated from "../../../src/layers/Emulated.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import { type Hypervisor, IrqLines } from "../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import { brief, onSimulated, recorder, turns } from "../../support/machines.ts"

const RAM = 0x2_0000
const CODE = 0x1000
// Segments of the programs, as their prologue loads them: data at 0x4000, extra at 0x5000, stack at 0x6000.
const SP = 0x100

const { rdi, rsi } = { rdi: 0x20n, rsi: 0x10n }
const start = VcpuRegisters.realMode({
  ip: 0,
  csBase: CODE,
  sp: SP,
  gprs: { rax: 0x1122_0000n, rcx: 0x5566_0003n, rdx: 0x99n, rbx: 0xaabb_0008n, rbp: 0xcc_0004n, rsi, rdi }
})

const BODY = 0x20
const NOP = 0x90
const HLT = 0xf4

const machineCode = (hex: string): ReadonlyArray<number> => [...Buffer.from(hex.replaceAll(" ", ""), "hex")]

// MOV AX, selector and MOV DS, ES, SS from it; then AX gets a value of its own, and the body follows.
const prologue = machineCode("b8 0004 8ed8 b8 0005 8ec0 b8 0006 8ed0 b8 4433")

/** Runs code in real mode and gives what it left: memory and registers. */
const run = (code: ReadonlyArray<number>, memory: ReadonlyArray<readonly [number, ReadonlyArray<number>]> = []) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: RAM })
    yield* vm.memory.write(0x4000, Uint8Array.from({ length: 0x3000 }, (_, i) => i * 7 + (i >> 8)))
    yield* vm.memory.write(CODE + BODY, Uint8Array.of(...code, HLT))
    yield* vm.memory.write(CODE, Uint8Array.from({ length: BODY }, (_, i) => prologue[i] ?? NOP))
    for (const [at, bytes] of memory) yield* vm.memory.write(at, Uint8Array.from(bytes))
    yield* vm.setRegisters(0, start)
    const running = yield* vm.start
    const end = yield* running.ended
    const paused = yield* running.pause
    const { csBase, csSel, gprs, rflags, rip, ...rest } = yield* paused.registers(0)
    // Auxiliary carry is not modelled, and a shift leaves overflow undefined.
    const flags = rflags & 0x4c5n
    return {
      end,
      memory: Buffer.from(yield* vm.memory.read(0, RAM)),
      registers: { gprs, flags, rip, csBase, csSel, selectors: [rest.dsSel, rest.esSel, rest.ssSel] }
    }
  })

type Program = ReturnType<typeof run>

const on = <R, E>(hypervisor: Layer.Layer<R | Hypervisor, E>) => (program: Program) =>
  program.pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(hypervisor)), { local: true })
  ) as Effect.Effect<Effect.Success<Program>, unknown>

// Each row: what it does, its code, and what else must be in memory.
const rows: ReadonlyArray<
  readonly [name: string, code: string, memory?: ReadonlyArray<readonly [number, ReadonlyArray<number>]>]
> = [
  ["MOV of 16 bits keeps the upper half", "b8 78 56 89 c3"],
  ["0x66 makes 32 bits of 16", "66 b8 01 02 03 04 66 89 c3"],
  ["[BX+SI], [BX+DI], [SI], [DI], [BX]", "8b 00 03 01 03 04 03 05 03 07"],
  ["[BP+SI], [BP+DI], [BP+disp8], [BP+disp16] are in the stack segment", "8b 02 03 03 03 46 fe 03 86 34 01"],
  ["[disp16], with displacements of both sizes", "8b 06 34 02 03 40 f8 03 81 00 80"],
  ["an address wraps inside its segment", "bb ff ff 8a 40 05"],
  ["LEA gives the offset, not the address", "8d 40 05 8d 8e ff ff"],
  ["stores of 1, 2 and 4 bytes", "88 00 89 40 04 66 89 40 08"],
  ["moffs, both ways", "a0 34 12 a3 40 00 a1 02 00 66 a3 50 00"],
  ["segment prefixes", "26 8b 07 36 03 07 2e 03 06 20 00 3e 89 46 00"],
  ["MOV to segment registers moves what they see", "b8 10 05 8e d8 8b 07 8c d9"],
  ["PUSH and POP of 2 and 4 bytes", "50 66 53 68 34 12 6a fe 58 59 66 5a"],
  ["PUSHA and POPA", "60 b8 00 00 89 c3 89 c6 61"],
  ["the stack pointer wraps at 16 bits", "bc 00 00 50 53 59 5a"],
  // CALL over a JMP to the body, which is MOV AX and RET.
  ["CALL and RET", "e8 02 00 eb 04 b8 07 00 c3"],
  ["CALL through a register", "b8 27 00 ff d0 eb 04 bb 07 00 c3"],
  ["JMP near, and through memory", "e9 01 00 f4 c7 07 2f 00 ff 27 f4 f4 f4 f4 f4 b8 01 00"],
  ["JMP far, to the same place in another segment", "ea 06 00 02 01 f4 b8 01 00"],
  ["conditional jumps of both sizes", "31 c0 74 01 f4 0f 84 01 00 f4 40"],
  ["LOOP counts CX", "31 c0 40 e2 fd e3 01 f4"],
  ["MOVSB, STOSW, LODSB step SI and DI", "a4 ab ac fd a5 fc"],
  ["REP MOVSW from DS to ES, by CX", "f3 a5"],
  ["REP STOSB that wraps in its segment, backwards", "bf 01 00 fd f3 aa fc"],
  ["a string's source takes a prefix, its destination none", "26 a5 36 a4"],
  ["XCHG, TEST, NOT, NEG, INC, shifts of words", "87 07 85 07 f7 17 f7 18 ff 07 d1 27 c1 2f 03"],
  ["MOVZX and MOVSX", "0f b6 07 66 0f be 1c 66 0f b7 15"],
  ["INT and IRET", "f9 fb cd 21 b9 09 00 fa", [
    [0x84, [0x10, 0x00, 0x80, 0x00]],
    [0x810, [0xb8, 0x21, 0x00, 0xf8, 0xcf]]
  ]]
]

describe("real mode", () => {
  it.effect.each(rows)("%s", ([, code, memory]) =>
    Effect.gen(function*() {
      const here = yield* run(machineCode(code), memory).pipe(on(Simulated.layer))
      const there = yield* run(machineCode(code), memory).pipe(on(Emulated.layerWith({ clock: "Virtual" })))
      assert.deepStrictEqual([here.end, there.end], [{ _tag: "Halted" }, { _tag: "Halted" }])
      assert.deepStrictEqual(here.registers, there.registers)
      assert.isTrue(here.memory.equals(there.memory))
    }))

  /** A VM whose only instructions stand at guest address 0, where it starts with these registers. */
  const bootAtZero = (code: ReadonlyArray<number>, registers: VcpuRegisters.VcpuRegisters) =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine.VirtualMachine
      const vm = yield* machines.create({ memoryBytes: RAM })
      yield* vm.memory.write(0, Uint8Array.from(code))
      yield* vm.setRegisters(0, registers)
      return vm
    })

  it.effect("a guest starts where CS was said to begin, not where its selector says", () =>
    Effect.gen(function*() {
      // The registers of the kernel's own sample client: CS selector 0xf000, base 0.
      const registers = { ...VcpuRegisters.realMode({ ip: 0 }), csSel: 0xf000 }
      // Writes A to E to a port, reads one, writes what it read, halts.
      const vm = yield* bootAtZero(
        machineCode("31d2 b603 b2f8 b041 ee fec0 3c46 75f9 b2fd ec b2f8 ee f4 ebfd"),
        registers
      )
      const seen = yield* recorder(vm, { ranges: [ports(0x3f8, 0x3ff)], answer: (): IoValue => 0x7a })
      const running = yield* vm.start
      assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
      assert.deepStrictEqual(seen.map(brief), [
        ...[0x41, 0x42, 0x43, 0x44, 0x45].map((value) => `w1 port 3f8 ${value.toString(16)}`),
        "r1 port 3fd",
        "w1 port 3f8 7a"
      ])
      const { csBase, csSel, rip } = yield* (yield* running.pause).registers(0)
      assert.deepStrictEqual([csBase, csSel, rip], [0n, 0xf000, 22n])
    }).pipe(onSimulated()))

  it.effect("an interrupt goes through the vector table, and wakes a vCPU that halts", () =>
    Effect.gen(function*() {
      const irq = yield* IrqLines
      // Programs the controllers for vectors 8 on, with nothing masked, then STI and HLT; behind it, OUT 0x80, AL.
      const vm = yield* bootAtZero([], VcpuRegisters.realMode({ ip: 0x40 }))
      yield* vm.memory.write(
        0x40,
        Uint8Array.from(machineCode("bc0080 b011 e620 b008 e621 b004 e621 b001 e621 b000 e621 b007 fb f4 e680 fa f4"))
      )
      // Vector 9, line 1, is 0x0300:0x0004, which adds one to AL.
      yield* vm.memory.write(9 * 4, Uint8Array.of(0x04, 0x00, 0x00, 0x03))
      yield* vm.memory.write(0x3004, Uint8Array.of(0x40, 0xcf))
      const seen = yield* recorder(vm, { ranges: [ports(0x80, 0x80)] })
      const running = yield* vm.start
      yield* turns(5)
      irq.set(vm.id, 1, true)
      assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
      assert.deepStrictEqual(seen.map(brief), ["w1 port 80 8"])
    }).pipe(onSimulated()))

  it.effect.each<readonly [name: string, code: ReadonlyArray<number>]>([
    ["an address of 32 bits", [0x67, 0x8a, 0x00]],
    ["a far call", [0x9a, 0, 0, 0, 0]],
    ["a far jump through memory", [0xff, 0x2f]],
    ["a segment register on the stack", [0x1e]],
    ["MOV to CS", [0x8e, 0xc8]],
    ["a move to CR0, the way out of real mode", [0x0f, 0x22, 0xc0]],
    ["division", [0xf7, 0xf3]]
  ])("%s is refused, with what it is", ([, code]) =>
    Effect.gen(function*() {
      const vm = yield* bootAtZero([0x90, ...code], VcpuRegisters.realMode({ ip: 0 }))
      const end = yield* (yield* vm.start).ended
      assert.strictEqual(end._tag, "UnsupportedInstruction")
      if (end._tag !== "UnsupportedInstruction") return
      assert.strictEqual(end.address, 1)
      assert.deepStrictEqual(end.bytes.slice(0, code.length), code)
    }).pipe(onSimulated()))

  it.effect("an interrupt without a vector or a stack ends the guest", () =>
    Effect.gen(function*() {
      // IDT limit 0, as the kernel's sample has it; and a stack where there is no RAM.
      const noTable = { ...VcpuRegisters.realMode({ ip: 0 }), idt: { base: 0n, limit: 0 } }
      const noStack = VcpuRegisters.realMode({ ip: 0, csBase: 0 })
      for (
        const [code, registers] of [
          [[0xcd, 0x10], noTable],
          [[0xb8, 0x00, 0x90, 0x8e, 0xd0, 0xcd, 0x10], noStack]
        ] as const
      ) {
        const vm = yield* bootAtZero(code, registers)
        assert.strictEqual((yield* (yield* vm.start).ended)._tag, "Shutdown")
      }
    }).pipe(onSimulated()))
})
