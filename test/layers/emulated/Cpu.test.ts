import { assert, describe, it } from "@effect/vitest"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import * as Cpu from "../../../src/layers/emulated/Cpu.ts"
import { CpuError } from "../../../src/layers/emulated/CpuError.ts"
import * as CpuModule from "../../../src/layers/emulated/CpuModule.ts"
import {
  bare,
  ENTRY,
  flat,
  GDT,
  gdt,
  HLT,
  IDT,
  interruptible,
  le16,
  le32,
  MEGABYTE,
  runToEnd,
  TICKS
} from "./harness.ts"

describe("running bare code", () => {
  it("starts with zeroed RAM and registers as ACRN sets them", async () => {
    const cpu = await flat([HLT])
    const ram = cpu.memory.read(0, MEGABYTE)
    ram[ENTRY] = 0
    assert.isTrue(ram.every((byte) => byte === 0))
    const registers = cpu.getRegisters()
    assert.strictEqual(registers.rip, BigInt(ENTRY))
    assert.strictEqual(registers.csSel, 0x10)
    assert.strictEqual(registers.dsSel, 0x18)
    assert.strictEqual(registers.csAr, 0xc09b)
    assert.strictEqual(registers.csLimit, 0xffff_ffff)
    assert.deepStrictEqual(await cpu.run(), { _tag: "Dead" })
    assert.strictEqual(cpu.getRegisters().rip, BigInt(ENTRY + 1))
    assert.strictEqual(cpu.instructionCount, 1)
    cpu.dispose()
  })

  it("uses 32-bit registers in flat mode and 16-bit registers in real mode", async () => {
    // mov eax, 0x12345678 / in real mode: mov ax, 0x5678; xor al, 0x12
    const cpu = await flat([0xb8, ...le32(0x1234_5678), HLT])
    await cpu.run()
    assert.strictEqual(cpu.getRegisters().gprs.rax, 0x1234_5678n)
    cpu.dispose()

    const real = Cpu.make(await CpuModule.installed(), bare())
    // mov ax, 0x2000; mov ds, ax; mov byte [0x10], 0x5a; push ax; hlt
    real.memory.write(
      0xf_0100,
      Uint8Array.of(0xb8, ...le16(0x2000), 0x8e, 0xd8, 0xc6, 0x06, ...le16(0x10), 0x5a, 0x50, HLT)
    )
    real.setRegisters(VcpuRegisters.realMode({ ip: 0x100, csBase: 0xf_0000, sp: 0x7000 }))
    await real.run()
    assert.deepStrictEqual([...real.memory.read(0x2_0010, 1)], [0x5a])
    assert.deepStrictEqual([...real.memory.read(0x6ffe, 2)], le16(0x2000))
    const registers = real.getRegisters()
    assert.strictEqual(registers.rip, 0x10cn)
    assert.strictEqual(registers.csSel, 0xf000)
    assert.strictEqual(registers.dsSel, 0x2000)
    assert.strictEqual(registers.csAr, 0x9f)
    real.dispose()
  })

  it("gives registers back as they were set", async () => {
    const cpu = await flat([HLT])
    const registers = {
      ...VcpuRegisters.flat32({
        entry: 0x8_0000,
        stack: 0x7_0000,
        gprs: { rax: 1n, rcx: 2n, rdx: 3n, rbx: 4n, rbp: 5n, rsi: 6n, rdi: 0xffff_ffffn }
      }),
      gdt: { base: 0x1234n, limit: 0x27 },
      idt: { base: 0x9_8765n, limit: 0x7ff },
      cr3: 0x5000n,
      cr4: 0x10n,
      csBase: 0x100n,
      csLimit: 0xffff,
      csAr: 0x409b,
      csSel: 8,
      ssSel: 0x20,
      dsSel: 0x28,
      esSel: 0x30,
      fsSel: 0x38,
      gsSel: 0x40,
      trSel: 0x48,
      ldtSel: 0x50,
      rflags: 0x8d7n
    }
    cpu.setRegisters(registers)
    assert.deepStrictEqual(cpu.getRegisters(), registers)
    cpu.dispose()
  })

  it("refuses registers of another CPU and changes nothing", async () => {
    const cpu = await flat([HLT])
    const before = cpu.getRegisters()
    const good = VcpuRegisters.flat32({ entry: 0x2000 })
    const bad: Record<string, VcpuRegisters.VcpuRegisters> = {
      rax: { ...good, gprs: { ...good.gprs, rax: 1n << 32n } },
      r8: { ...good, gprs: { ...good.gprs, r8: 1n } },
      rip: { ...good, rip: 1n << 32n },
      ia32Efer: { ...good, ia32Efer: 0x500n },
      csAr: { ...good, csAr: 0xa09b },
      cr4: { ...good, cr4: 1n << 12n },
      cr0: { ...good, cr0: 1n << 31n },
      rflags: { ...good, rflags: 0x102n },
      "gdt.base": { ...good, gdt: { base: -1n, limit: 0 } }
    }
    for (const [register, registers] of Object.entries(bad)) {
      try {
        cpu.setRegisters(registers)
        assert.fail(`${register} was taken`)
      } catch (cause) {
        assert.instanceOf(cause, CpuError)
        assert.strictEqual(cause.reason._tag === "BadRegister" && cause.reason.register, register)
        assert.include(cause.message, register)
      }
    }
    assert.deepStrictEqual(cpu.getRegisters(), before)
    cpu.dispose()
  })

  it.each(
    [
      // One page table entry of 4 MiB at 0x400000 -> 0, and one at 0 -> 0.
      { name: "32-bit paging", cr4: 0x10n, cr3: 0x2000n, tables: [[0x2000, [0x83, 0x83].flatMap(le32)]] },
      {
        // The core knows large pages under PAE only together with CR4.PSE, which a real processor ignores there.
        name: "PAE paging",
        cr4: 0x30n,
        cr3: 0x2000n,
        tables: [[0x2000, [0x3001, 0].flatMap(le32)], [0x3000, [0x83, 0, 0x83, 0, 0x83, 0].flatMap(le32)]]
      }
    ] as const
  )("starts in $name", async ({ cr3, cr4, tables }) => {
    // mov [0x405000], eax: page 5 of the alias
    const cpu = await flat([0xa3, ...le32(0x40_5000), HLT])
    for (const [address, bytes] of tables) {
      cpu.memory.write(address, Uint8Array.from(bytes))
    }
    const registers = VcpuRegisters.flat32({ entry: ENTRY, gprs: { rax: 0x55aan } })
    cpu.setRegisters({ ...registers, cr0: registers.cr0 | VcpuRegisters.Cr0.Paging, cr3, cr4 })
    assert.deepStrictEqual(await cpu.run(), { _tag: "Dead" })
    assert.strictEqual(cpu.memory.load32(0x5000), 0x55aa)
    cpu.dispose()
  })
})

describe("code that changes", () => {
  it.each([true, false])("written from outside is executed as it is now (compiled: %s)", async (jit) => {
    // mov ecx, n; L: add ebx, 1; dec ecx; jnz L; hlt
    const n = 500_000
    const cpu = await flat([0xb9, ...le32(n), 0x83, 0xc3, 1, 0x49, 0x75, 0xfa, HLT], { jit })
    for (const step of [1, 5, 100]) {
      cpu.memory.write(ENTRY + 7, Uint8Array.of(step))
      cpu.setRegisters(VcpuRegisters.flat32({ entry: ENTRY }))
      await runToEnd(cpu)
      assert.strictEqual(cpu.getRegisters().gprs.rbx, BigInt(n * step))
    }
    // The same through a word, and through fill.
    cpu.memory.store32(ENTRY + 4, 0x07c3_8300)
    cpu.setRegisters(VcpuRegisters.flat32({ entry: ENTRY }))
    await runToEnd(cpu)
    assert.strictEqual(cpu.getRegisters().gprs.rbx, BigInt(n * 7))
    cpu.memory.fill(ENTRY, 4096, HLT)
    cpu.setRegisters(VcpuRegisters.flat32({ entry: ENTRY }))
    await runToEnd(cpu)
    assert.strictEqual(cpu.getRegisters().gprs.rbx, 0n)
    cpu.dispose()
  })

  it("written by a handler while the CPU waits is executed as it is now", async () => {
    // mov ecx, n; L: add ebx, 1; dec ecx; jnz L; in al, dx; inc esi; cmp esi, 3; jnz ENTRY; hlt
    const n = 300_000
    let step = 1
    const cpu: Cpu.Cpu = await flat([
      [0xb9, ...le32(n), 0x83, 0xc3, 1, 0x49, 0x75, 0xfa],
      [0xec, 0x46, 0x83, 0xfe, 3, 0x75, 0xee, HLT]
    ], {
      onPortRead: async () => {
        step += 1
        await Promise.resolve()
        cpu.memory.write(ENTRY + 7, Uint8Array.of(step))
        return 0
      }
    })
    await runToEnd(cpu)
    assert.strictEqual(cpu.getRegisters().gprs.rbx, BigInt(n * (1 + 2 + 3)))
    cpu.dispose()
  })
})

describe("reset", () => {
  it("gives a CPU that runs again like a new one, with its RAM and count", async () => {
    // sti; L: hlt; jmp L
    let last = 0
    const cpu = await interruptible([0xfb, HLT, 0xeb, 0xfd], {
      now: (instructionCount) => {
        assert.isAtLeast(instructionCount, last)
        last = instructionCount
        return instructionCount
      }
    })
    await runToEnd(cpu)
    cpu.setInterruptLine(0, true)
    await runToEnd(cpu)
    const count = cpu.instructionCount
    assert.strictEqual(cpu.memory.load32(TICKS), 1)
    cpu.reset()
    assert.strictEqual(cpu.instructionCount, count)
    assert.strictEqual(cpu.getRegisters().rip, 0xfff0n)
    assert.strictEqual(cpu.getRegisters().csSel, 0xf000)
    assert.strictEqual(cpu.memory.load32(TICKS), 1)
    cpu.setRegisters({
      ...VcpuRegisters.flat32({ entry: ENTRY, stack: 0x7000 }),
      gdt: { base: BigInt(GDT), limit: gdt.length - 1 },
      idt: { base: BigInt(IDT), limit: 0x7ff }
    })
    assert.strictEqual((await runToEnd(cpu))._tag, "Halted")
    assert.strictEqual(cpu.memory.load32(TICKS), 1)
    cpu.setInterruptLine(0, false)
    cpu.setInterruptLine(0, true)
    await runToEnd(cpu)
    assert.strictEqual(cpu.memory.load32(TICKS), 2)
    assert.isAbove(cpu.instructionCount, count)
    cpu.dispose()
  })
})
