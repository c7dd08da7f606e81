import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { mmio } from "../../../src/domain/IoRange.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import type { CreatedVm } from "../../../src/services/Vm.ts"
import * as g from "../../support/guest.ts"
import { boot, brief, ENTRY, onSimulated, recorder, runToEnd, STACK, TEST_PORTS } from "../../support/machines.ts"

const DATA = 0x8000
const DEVICE = 0xf000_0000
const DEVICES = [TEST_PORTS, mmio(DEVICE, DEVICE + 0xfff)]

const unsigned = (value: bigint): number => Number(BigInt.asUintN(32, value))

/** The registers after a program ended; it must end by halting. */
const registersAfter = (vm: CreatedVm) =>
  Effect.gen(function*() {
    const running = yield* vm.start
    assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
    const paused = yield* running.pause
    const { gprs, rip } = yield* paused.registers(0)
    return {
      eax: unsigned(gprs.rax),
      ebx: unsigned(gprs.rbx),
      ecx: unsigned(gprs.rcx),
      edx: unsigned(gprs.rdx),
      esi: unsigned(gprs.rsi),
      edi: unsigned(gprs.rdi),
      esp: unsigned(gprs.rsp),
      eip: unsigned(rip)
    }
  })

/** What a program without devices leaves in the registers. */
const compute = (...parts: ReadonlyArray<g.Code>) =>
  Effect.flatMap(boot(g.code(...parts, g.stop)), registersAfter).pipe(onSimulated())

const U32 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff }))

describe("Interpreter", () => {
  describe("data movement", () => {
    it.effect.prop("a narrow load or store touches nothing but its bytes", [U32, U32, Schema.Literals([1, 2, 4])], (
      [before, written, size]
    ) =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(
          g.mov(g.Reg.eax, before),
          g.store(DATA),
          g.mov(g.Reg.eax, written),
          g.store(DATA, size),
          g.mov(g.Reg.eax, written),
          g.load(DATA + 0x100, size),
          g.stop
        ))
        yield* vm.memory.write32(DATA + 0x100, before)
        const { eax } = yield* registersAfter(vm)
        const mask = 2 ** (8 * size) - 1
        const mixed = Number(BigInt(before) & ~BigInt(mask) | BigInt(written) & BigInt(mask)) >>> 0
        assert.strictEqual(yield* vm.memory.read32(DATA), mixed)
        assert.strictEqual(eax, Number(BigInt(written) & ~BigInt(mask) | BigInt(before) & BigInt(mask)) >>> 0)
      }).pipe(onSimulated()), { arbitrary: { runs: 40 } })

    it.effect("byte registers are the halves of the first four", () =>
      Effect.map(
        // MOV AH, 0x12; MOV BL, AH; MOVZX ECX, AH; MOVSX EDX, AL with AL = 0x80.
        compute(g.mov(g.Reg.eax, 0x80), [0xb4, 0x12], [0x88, 0xe3], [0x0f, 0xb6, 0xcc], [0x0f, 0xbe, 0xd0]),
        ({ eax, ebx, ecx, edx }) => assert.deepStrictEqual([eax, ebx, ecx, edx], [0x1280, 0x12, 0x12, 0xffff_ff80])
      ))

    it.effect("addresses are base + index * scale + displacement", () =>
      Effect.map(
        // LEA EAX, [EBX + ESI*4 + 0x10]; LEA ECX, [ESI*8 + 0x1000]; LEA EDX, [EBX - 1].
        compute(
          g.mov(g.Reg.ebx, 0x2000),
          g.mov(g.Reg.esi, 3),
          [0x8d, 0x44, 0xb3, 0x10],
          [0x8d, 0x0c, 0xf5, 0x00, 0x10, 0x00, 0x00],
          [0x8d, 0x53, 0xff]
        ),
        ({ eax, ecx, edx }) => assert.deepStrictEqual([eax, ecx, edx], [0x201c, 0x1018, 0x1fff])
      ))

    it.effect("the stack grows down by four bytes a push, PUSHA and POPA mirror each other", () =>
      Effect.map(
        // PUSH EBX; PUSH 0x77; POP EAX; PUSHA; zero EBX; POPA; POP ECX.
        compute(
          g.mov(g.Reg.ebx, 0xb0b),
          [0x53, 0x6a, 0x77, 0x58, 0x60],
          g.mov(g.Reg.ebx, 0),
          [0x61, 0x59]
        ),
        ({ eax, ebx, ecx, esp }) => assert.deepStrictEqual([eax, ebx, ecx, esp], [0x77, 0xb0b, 0xb0b, STACK])
      ))

    it.effect("calls return behind themselves", () =>
      Effect.map(
        // CALL +2 over JMP +6 to the body: MOV EAX, 7; RET.
        compute([0xe8, 0x02, 0, 0, 0, 0xeb, 0x06, ...g.mov(g.Reg.eax, 7), 0xc3]),
        ({ eax, esp }) => assert.deepStrictEqual([eax, esp], [7, STACK])
      ))

    it.effect("a value across a page's end is one value", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.mov(g.Reg.eax, 0x1234_5678), g.store(DATA + 0xffe), g.stop))
        yield* runToEnd(vm)
        assert.strictEqual(yield* vm.memory.read32(DATA + 0xffe), 0x1234_5678)
      }).pipe(onSimulated()))
  })

  describe("arithmetic", () => {
    // The forms of the group: accumulator, register to memory, memory to register, immediate to memory.
    it.effect.prop("all forms of an operation agree with its flags", [U32, U32, Schema.Literals([0, 1, 4, 5, 6])], (
      [a, b, operation]
    ) =>
      Effect.gen(function*() {
        const expected = BigInt.asUintN(
          32,
          [
            BigInt(a) + BigInt(b),
            BigInt(a) | BigInt(b),
            0n,
            0n,
            BigInt(a) & BigInt(b),
            BigInt(a) - BigInt(b),
            BigInt(a) ^ BigInt(b)
          ][operation]!
        )
        const le = (value: number) => [value & 0xff, value >>> 8 & 0xff, value >>> 16 & 0xff, value >>> 24 & 0xff]
        const group = operation << 3
        const vm = yield* boot(g.code(
          // OP [DATA], EBX and OP EDX, [DATA + 4] and OP [DATA + 8], imm32 and OP EAX, imm32.
          g.mov(g.Reg.ebx, b),
          [group | 0x01, 0x1d, ...le(DATA)],
          g.mov(g.Reg.edx, a),
          [group | 0x03, 0x15, ...le(DATA + 4)],
          [0x81, 0x05 | group, ...le(DATA + 8), ...le(b)],
          g.mov(g.Reg.eax, a),
          [group | 0x05, ...le(b)],
          g.stop
        ))
        yield* vm.memory.write32(DATA, a)
        yield* vm.memory.write32(DATA + 4, b)
        yield* vm.memory.write32(DATA + 8, a)
        const { eax, edx } = yield* registersAfter(vm)
        const inMemory = yield* Effect.all([vm.memory.read32(DATA), vm.memory.read32(DATA + 8)])
        assert.deepStrictEqual([eax, edx, ...inMemory].map(BigInt), [expected, expected, expected, expected])
      }).pipe(onSimulated()), { arbitrary: { runs: 40 } })

    it.effect("a comparison changes nothing but flags", () =>
      Effect.map(
        // CMP EAX, 5; JE over MOV EBX, 1.
        compute(g.mov(g.Reg.eax, 5), [0x83, 0xf8, 0x05, 0x74, 0x05], g.mov(g.Reg.ebx, 1)),
        ({ eax, ebx }) => assert.deepStrictEqual([eax, ebx], [5, 0])
      ))

    it.effect("LOOP counts ECX down, JECXZ leaves when it is 0", () =>
      Effect.map(
        // XOR EAX, EAX; L: INC EAX; LOOP L; JECXZ over MOV EBX, 1.
        compute(g.mov(g.Reg.ecx, 5), [0x31, 0xc0, 0x40, 0xe2, 0xfd, 0xe3, 0x05], g.mov(g.Reg.ebx, 1)),
        ({ eax, ebx, ecx }) => assert.deepStrictEqual([eax, ebx, ecx], [5, 0, 0])
      ))
  })

  describe("string instructions", () => {
    const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 }))
    const Size = Schema.Literals([1, 2, 4])

    it.effect.prop(
      "REP OUTS is count accesses of size bytes (law 14)",
      [Count, Size],
      ([count, size]) =>
        Effect.gen(function*() {
          const vm = yield* boot(g.code(g.repOut(0x110, DATA, count, size), g.stop))
          const bytes = Uint8Array.from({ length: 64 }, (_, i) => 0x80 + i)
          yield* vm.memory.write(DATA, bytes)
          const seen = yield* recorder(vm)
          const { ecx, esi } = yield* registersAfter(vm)
          const view = new DataView(bytes.buffer)
          const values = Array.from({ length: count }, (_, i) =>
            size === 1
              ? view.getUint8(i)
              : size === 2
              ? view.getUint16(i * 2, true)
              : view.getUint32(i * 4, true))
          assert.deepStrictEqual(seen.map(brief), values.map((value) => `w${size} port 110 ${value.toString(16)}`))
          assert.deepStrictEqual([ecx, esi], [0, DATA + count * size])
        }).pipe(onSimulated()),
      { arbitrary: { runs: 30 } }
    )

    it.effect.prop(
      "REP INS is count accesses, and their answers lie side by side",
      [Count, Size],
      ([count, size]) =>
        Effect.gen(function*() {
          const vm = yield* boot(g.code(g.repIn(0x110, DATA, count, size), g.stop))
          let next = 0
          const seen = yield* recorder(vm, { answer: () => 0x0101_0101 * ++next })
          const { ecx, edi } = yield* registersAfter(vm)
          assert.deepStrictEqual(seen.map(brief), Array.from({ length: count }, () => `r${size} port 110`))
          const expected = Uint8Array.from({ length: 40 }, (_, i) => i < count * size ? Math.floor(i / size) + 1 : 0)
          assert.deepStrictEqual(yield* vm.memory.read(DATA, 40), expected)
          assert.deepStrictEqual([ecx, edi], [0, DATA + count * size])
        }).pipe(onSimulated()),
      { arbitrary: { runs: 30 } }
    )

    it.effect.prop(
      "REP MOVS copies, forwards or backwards",
      [Count, Size, Schema.Boolean],
      ([count, size, down]) =>
        Effect.gen(function*() {
          const last = down ? (count - 1) * size : 0
          const vm = yield* boot(g.code(
            down ? [0xfd] : [0xfc],
            g.repMove(DATA + last, DATA + 0x100 + last, count, size),
            g.stop
          ))
          const bytes = Uint8Array.from({ length: 40 }, (_, i) => i + 1)
          yield* vm.memory.write(DATA, bytes)
          const { ecx, esi } = yield* registersAfter(vm)
          const copied = yield* vm.memory.read(DATA + 0x100, 40)
          assert.deepStrictEqual(copied, bytes.map((byte, i) => i < count * size ? byte : 0))
          assert.deepStrictEqual([ecx, esi], [0, down ? DATA + last - count * size : DATA + count * size])
        }).pipe(onSimulated()),
      { arbitrary: { runs: 30 } }
    )

    it.effect("REP STOS and LODS go through the accumulator", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(
          g.mov(g.Reg.edi, DATA),
          g.mov(g.Reg.ecx, 3),
          g.mov(g.Reg.eax, 0x1122_3344),
          [0xf3, 0x66, 0xab],
          g.mov(g.Reg.esi, DATA + 4),
          g.mov(g.Reg.eax, 0),
          [0xad],
          g.stop
        ))
        const { eax, edi, esi } = yield* registersAfter(vm)
        assert.deepStrictEqual([eax, edi, esi], [0x3344, DATA + 6, DATA + 8])
      }).pipe(onSimulated()))

    it.effect("memory to memory may be device memory on both sides", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.repMove(DEVICE, DEVICE + 0x100, 2, 4), g.stop))
        let next = 0x70
        const seen = yield* recorder(vm, { ranges: DEVICES, answer: () => next++ })
        yield* runToEnd(vm)
        assert.deepStrictEqual(seen.map(brief), [
          "r4 mmio f0000000",
          "w4 mmio f0000100 70",
          "r4 mmio f0000004",
          "w4 mmio f0000104 72"
        ])
      }).pipe(onSimulated()))
  })

  describe("device accesses", () => {
    it.effect("each width arrives as one request, values cut to it", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(
          ...([1, 2, 4] as const).flatMap((size) => [
            g.out(0x100, 0x89ab_cdef, size),
            g.inp(0x104, size),
            g.mov(g.Reg.eax, 0x89ab_cdef),
            g.store(DEVICE, size),
            g.load(DEVICE + 8, size)
          ]),
          g.stop
        ))
        const seen = yield* recorder(vm, { ranges: DEVICES })
        yield* runToEnd(vm)
        assert.deepStrictEqual(
          seen.map(brief),
          [1, 2, 4].flatMap((size) => {
            const value = "89abcdef".slice(8 - 2 * size)
            return [
              `w${size} port 100 ${value}`,
              `r${size} port 104`,
              `w${size} mmio f0000000 ${value}`,
              `r${size} mmio f0000008`
            ]
          })
        )
      }).pipe(onSimulated()))

    it.effect("a port access over the end of the port space reads all-ones and reaches nobody", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.mov(g.Reg.eax, 0), g.inp(0xffff, 2), g.store(DATA), g.stop))
        const seen = yield* recorder(vm)
        yield* runToEnd(vm)
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* vm.memory.read32(DATA), 0xffff)
        assert.deepStrictEqual(yield* vm.io.recentEvents, [])
      }).pipe(onSimulated()))

    it.effect("an access from memory into a hole arrives byte by byte where there is no memory", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.mov(g.Reg.eax, 0x4433_2211), g.store(0x1_fffe), g.stop))
        const seen = yield* recorder(vm, { ranges: [mmio(0x2_0000, 0x2_ffff)] })
        yield* runToEnd(vm)
        assert.deepStrictEqual(seen.map(brief), ["w1 mmio 20000 33", "w1 mmio 20001 44"])
        assert.deepStrictEqual(yield* vm.memory.read(0x1_fffe, 2), Uint8Array.of(0x11, 0x22))
      }).pipe(onSimulated()))

    it.effect("a write to a read-only page is a request, a read of it is not", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.load(0x10_0000), g.mov(g.Reg.ebx, 0), g.addImmediate(0x10_0000, 1), g.stop))
        yield* vm.mapMemory({
          guestAddress: 0x10_0000,
          bytes: 0x1000,
          rights: { read: true, write: false, execute: false }
        })
        yield* vm.memory.write32(0x10_0000, 41)
        const seen = yield* recorder(vm, { ranges: [mmio(0x10_0000, 0x10_0fff)] })
        yield* runToEnd(vm)
        assert.deepStrictEqual(seen.map(brief), ["w4 mmio 100000 2a"])
        assert.strictEqual(yield* vm.memory.read32(0x10_0000), 41)
      }).pipe(onSimulated()))
  })

  describe("what it does not execute", () => {
    it.effect("is reported with its address and bytes", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.nop, [0x0f, 0xa2, 0x90]))
        const end = yield* runToEnd(vm)
        assert.strictEqual(end._tag, "UnsupportedInstruction")
        if (end._tag !== "UnsupportedInstruction") return
        assert.strictEqual(end.address, ENTRY + 1)
        assert.strictEqual(end.vcpu, 0)
        assert.deepStrictEqual(end.bytes.slice(0, 3), [0x0f, 0xa2, 0x90])
      }).pipe(onSimulated()))

    it.effect("changes nothing of the vCPU", () =>
      Effect.gen(function*() {
        // MUL EBX is not executed; EAX stays.
        const vm = yield* boot(g.code(g.mov(g.Reg.eax, 6), g.mov(g.Reg.ebx, 7), [0xf7, 0xe3]))
        const running = yield* vm.start
        yield* running.ended
        const { gprs, rip } = yield* (yield* running.pause).registers(0)
        assert.deepStrictEqual([gprs.rax, gprs.rbx, rip], [6n, 7n, BigInt(ENTRY + 10)])
      }).pipe(onSimulated()))

    it.effect.prop(
      "any bytes at all end in a reason or go on; they never break the hypervisor",
      [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), U32],
      ([bytes, value]) =>
        Effect.gen(function*() {
          const vm = yield* boot(g.code(g.mov(g.Reg.ebx, value), g.mov(g.Reg.esi, DATA), bytes, g.stop))
          const running = yield* vm.start
          const end = yield* Effect.raceFirst(
            running.ended,
            Effect.as(Effect.forEach(Array.from({ length: 2 }), () => Effect.yieldNow), undefined)
          )
          assert.notStrictEqual(end?._tag, "Fault")
          const paused = yield* running.pause
          const registers = yield* paused.registers(0)
          assert.isTrue(Schema.is(VcpuRegisters.VcpuRegisters)(registers))
        }).pipe(onSimulated()),
      { arbitrary: { runs: 80 } }
    )

    it.effect("code on a page without the right to execute is a shutdown", () =>
      Effect.gen(function*() {
        // JMP to the page.
        const vm = yield* boot(
          g.code([0xe9, ...[0x10_0000 - ENTRY - 5].flatMap((by) => [0, 8, 16, 24].map((shift) => by >>> shift & 0xff))])
        )
        yield* vm.mapMemory({
          guestAddress: 0x10_0000,
          bytes: 0x1000,
          rights: { read: true, write: true, execute: false }
        })
        assert.deepStrictEqual<unknown>(yield* runToEnd(vm), {
          _tag: "Shutdown",
          vcpu: 0,
          cause: "no executable memory at guest address 0x100000"
        })
      }).pipe(onSimulated()))
  })
})
