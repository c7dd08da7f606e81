import { assert, describe, it } from "@effect/vitest"
import type * as Cpu from "../../../src/layers/emulated/Cpu.ts"
import { ENTRY, flat, HLT, interruptible, le32, MEGABYTE, runToEnd } from "./harness.ts"

describe("the end of a slice", () => {
  it("comes also when time stands still", async () => {
    for (const jit of [false, true]) {
      const cpu = await flat([0xeb, 0xfe], { now: () => 0, jit })
      for (let slice = 0; slice < 3; slice++) {
        const before = cpu.instructionCount
        assert.deepStrictEqual(await cpu.run(), { _tag: "Preempted" })
        assert.isAtMost(cpu.instructionCount - before, 32 * 200_010)
      }
      assert.strictEqual(cpu.getRegisters().rip, BigInt(ENTRY))
      cpu.dispose()
    }
  })

  it("comes after one batch when a stop is asked for in the timer hook", async () => {
    for (const jit of [false, true]) {
      // inc eax; jmp $-1
      const cpu: Cpu.Cpu = await flat([0x40, 0xeb, 0xfd], {
        now: () => 0,
        jit,
        onTimers: () => {
          cpu.requestStop()
          return 1
        }
      })
      for (let slice = 1; slice <= 10; slice++) {
        const before = cpu.instructionCount
        assert.deepStrictEqual(await cpu.run(), { _tag: "Preempted" })
        assert.isAtMost(cpu.instructionCount - before, 200_010)
      }
      const { rax } = cpu.getRegisters().gprs
      assert.strictEqual(Math.abs(2 * Number(rax) - cpu.instructionCount) <= 1, true)
      cpu.dispose()
    }
  })

  it("comes right after the access whose handler asks for a stop, and the guest then goes on", async () => {
    for (const wait of [false, true]) {
      let writes = 0
      // L: inc ebx; out 0x80, al; jmp L
      const cpu: Cpu.Cpu = await flat([0x43, 0xe6, 0x80, 0xeb, 0xfb], {
        now: () => 0,
        onPortWrite: () => {
          writes += 1
          cpu.requestStop()
          return wait ? Promise.resolve() : undefined
        }
      })
      for (let slice = 1; slice <= 50; slice++) {
        assert.deepStrictEqual(await cpu.run(), { _tag: "Preempted" })
        assert.strictEqual(writes, slice)
        assert.strictEqual(cpu.getRegisters().gprs.rbx, BigInt(slice))
        assert.strictEqual(cpu.instructionCount, 3 * slice - 1)
      }
      cpu.dispose()
    }
  })

  it("does not come early after a stop that was asked for between slices", async () => {
    const cpu = await flat([0xe6, 0x80, 0x43, HLT])
    cpu.requestStop()
    assert.deepStrictEqual(await cpu.run(), { _tag: "Dead" })
    cpu.dispose()
  })

  it("does not wake a CPU that halts", async () => {
    // out 0x80, al; sti; hlt; hlt
    const cpu: Cpu.Cpu = await interruptible([0xe6, 0x80, 0xfb, HLT, HLT], {
      onPortWrite: () => cpu.requestStop(),
      onTimers: () => {
        cpu.requestStop()
        return 3
      }
    })
    await runToEnd(cpu)
    const { rip } = cpu.getRegisters()
    assert.deepStrictEqual(await cpu.run(), { _tag: "Halted", waitMs: 3 })
    assert.deepStrictEqual(await cpu.run(), { _tag: "Halted", waitMs: 3 })
    assert.strictEqual(cpu.getRegisters().rip, rip)
    cpu.dispose()
  })
})

describe("determinism", () => {
  // A guest that computes, asks devices, reads the time-stamp counter and takes interrupts, with time that follows it.
  const trace = async (jit: boolean): Promise<{ readonly trace: ReadonlyArray<string>; readonly ram: Uint8Array }> => {
    const seen: Array<string> = []
    let hooks = 0
    const cpu: Cpu.Cpu = await interruptible([
      [0xfb, 0xbe, ...le32(40)], // sti; mov esi, 40
      [0xb9, ...le32(20_000)], // outer: mov ecx, 20000
      [0x69, 0xdb, ...le32(1103515245), 0x81, 0xc3, ...le32(12345)], // inner: ebx = ebx * ... + ...
      [0x49, 0x75, 0xf1], // dec ecx; jnz inner
      [0x0f, 0x31, 0xef, 0x89, 0xd8, 0xef, 0xed], // rdtsc; out dx, eax; mov eax, ebx; out dx, eax; in eax, dx
      [0x01, 0xc3, 0x4e, 0x75, 0xe0, 0xfa, HLT] // add ebx, eax; dec esi; jnz outer; cli; hlt
    ], {
      jit,
      now: (instructionCount) => instructionCount / 50_000,
      onTimers: () => {
        hooks += 1
        cpu.setInterruptLine(0, hooks % 3 === 0)
        return 1
      },
      onPortRead: (port) => {
        const answer = cpu.instructionCount & 0xffff
        seen.push(`${cpu.instructionCount} in ${port} ${answer}`)
        return seen.length % 3 === 0 ? Promise.resolve(answer) : answer
      },
      onPortWrite: (port, _size, value) => {
        seen.push(`${cpu.instructionCount} out ${port} ${value}`)
      }
    })
    const end = await runToEnd(cpu, 100_000)
    seen.push(`${end._tag} ${cpu.instructionCount} ${cpu.getRegisters().gprs.rbx} ${cpu.suspensions}`)
    const ram = cpu.memory.read(0, MEGABYTE)
    cpu.dispose()
    return { trace: seen, ram }
  }

  it("gives the same trace, count and RAM in every run", async () => {
    for (const jit of [true, false]) {
      const runs = await Promise.all([trace(jit), trace(jit), trace(jit)])
      assert.isAbove(runs[0].trace.length, 100)
      assert.include(runs[0].trace.at(-1), "Dead")
      for (const run of runs) {
        assert.deepStrictEqual(run.trace, runs[0].trace)
        assert.deepStrictEqual(run.ram, runs[0].ram)
      }
    }
  })
})
