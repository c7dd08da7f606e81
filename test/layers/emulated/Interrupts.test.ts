import { assert, describe, it } from "@effect/vitest"
import type * as Cpu from "../../../src/layers/emulated/Cpu.ts"
import { HLT, interruptible, le32, runToEnd, TICKS } from "./harness.ts"

describe("interrupts", () => {
  it("wakes a halted CPU", async () => {
    // sti; L: hlt; jmp L
    const cpu = await interruptible([0xfb, HLT, 0xeb, 0xfd], { onTimers: () => 7 })
    for (let tick = 1; tick <= 5; tick++) {
      assert.deepStrictEqual(await runToEnd(cpu), { _tag: "Halted", waitMs: 7 })
      assert.strictEqual(cpu.memory.load32(TICKS), tick - 1)
      cpu.setInterruptLine(0, true)
      cpu.setInterruptLine(0, false)
    }
    assert.deepStrictEqual(await runToEnd(cpu), { _tag: "Halted", waitMs: 7 })
    assert.strictEqual(cpu.memory.load32(TICKS), 5)
    cpu.dispose()
  })

  it("comes from the timer hook into a loop that never halts, also through the second controller", async () => {
    let hooks = 0
    // sti; jmp $
    const cpu: Cpu.Cpu = await interruptible([0xfb, 0xeb, 0xfe], {
      onTimers: () => {
        hooks += 1
        cpu.setInterruptLine(9, hooks % 2 === 0)
        return 1
      }
    }, 0x29)
    for (let slice = 0; slice < 20; slice++) {
      await cpu.run()
    }
    assert.isAtLeast(hooks, 20)
    // The last one may have come without its handler having run.
    assert.include([hooks >> 1, (hooks >> 1) - 1], cpu.memory.load32(TICKS))
    cpu.dispose()
  })

  it.each([
    { name: "OUT", access: [0xe6, 0x80], wait: false },
    { name: "OUT that waits", access: [0xe6, 0x80], wait: true },
    // mov edi, 0x5ffc; mov ecx, 8; mov edx, 0x80; rep insb: over a page boundary, so the core runs it twice
    {
      name: "REP INSB",
      access: [0xbf, ...le32(0x5ffc), 0xb9, ...le32(8), 0xba, ...le32(0x80), 0xf3, 0x6c],
      wait: false
    }
  ])("set in $name arrives right after it", async ({ access, wait }) => {
    // sti; access; mov ebx, [TICKS]; hlt
    const raise = (): void => {
      cpu.setInterruptLine(0, true)
      cpu.setInterruptLine(0, false)
    }
    let reads = 0
    const cpu: Cpu.Cpu = await interruptible([0xfb, 0x90, ...access, 0x8b, 0x1d, ...le32(TICKS), HLT], {
      onPortRead: () => {
        reads += 1
        if (reads === 2) {
          raise()
        }
        return reads
      },
      onPortWrite: () => {
        if (wait) {
          return Promise.resolve().then(raise)
        }
        raise()
        return undefined
      }
    })
    assert.strictEqual((await runToEnd(cpu))._tag, "Halted")
    assert.strictEqual(cpu.getRegisters().gprs.rbx, 1n)
    if (reads > 0) {
      assert.deepStrictEqual([...cpu.memory.read(0x5ffc, 8)], [1, 2, 3, 4, 5, 6, 7, 8])
    }
    cpu.dispose()
  })

  it("set in an MMIO handler of compiled code leaves its registers alone", async () => {
    // sti; mov ecx, n; L: mov eax, [0xd0000000]; add ebx, eax; dec ecx; jnz L; cli; hlt
    const n = 400_000
    let reads = 0
    const cpu: Cpu.Cpu = await interruptible(
      [0xfb, 0xb9, ...le32(n), 0xa1, ...le32(0xd000_0000), 0x01, 0xc3, 0x49, 0x75, 0xf6, 0xfa, HLT],
      {
        onMmioRead: () => {
          reads += 1
          if (reads % 1000 === 0) {
            cpu.setInterruptLine(0, true)
            cpu.setInterruptLine(0, false)
          }
          return 3
        }
      }
    )
    assert.deepStrictEqual(await runToEnd(cpu), { _tag: "Dead" })
    assert.strictEqual(reads, n)
    assert.strictEqual(cpu.getRegisters().gprs.rbx, BigInt(3 * n))
    assert.isAbove(cpu.memory.load32(TICKS), 1)
    cpu.dispose()
  })

  it("set in OUT arrives right after it although the timer hook sets lines all the time", async () => {
    // sti; L: out 0x80, al; mov ebx, [TICKS]; out 0x81, al; jmp L
    let level = false
    let pulses = 0
    let seen = 0
    const cpu: Cpu.Cpu = await interruptible([0xfb, 0xe6, 0x80, 0x8b, 0x1d, ...le32(TICKS), 0xe6, 0x81, 0xeb, 0xf4], {
      onTimers: () => {
        level = !level
        cpu.setInterruptLine(5, level)
        return 1
      },
      onPortWrite: (port) => {
        if (port === 0x80) {
          pulses += 1
          cpu.setInterruptLine(0, false)
          cpu.setInterruptLine(0, true)
        } else {
          assert.strictEqual(cpu.memory.load32(TICKS), pulses)
          seen += 1
        }
      }
    })
    for (let slice = 0; slice < 200; slice++) {
      await cpu.run()
    }
    assert.isAbove(seen, 100)
    assert.isAtMost(pulses - seen, 1)
    cpu.dispose()
  })

  it("ignores lines that are not there", async () => {
    const cpu = await interruptible([0xfb, HLT, 0xeb, 0xfd], {})
    for (const line of [-1, 16, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32]) {
      cpu.setInterruptLine(line, true)
    }
    assert.strictEqual((await runToEnd(cpu))._tag, "Halted")
    assert.strictEqual((await runToEnd(cpu))._tag, "Halted")
    assert.strictEqual(cpu.memory.load32(TICKS), 0)
    cpu.dispose()
  })
})
