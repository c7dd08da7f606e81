import { assert, describe, it } from "@effect/vitest"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import * as Cpu from "../../../src/layers/emulated/Cpu.ts"
import { CpuError } from "../../../src/layers/emulated/CpuError.ts"
import * as CpuModule from "../../../src/layers/emulated/CpuModule.ts"
import { bare, ENTRY, flat, HLT, later, le32, MEGABYTE, reasonOf } from "./harness.ts"

describe("failures", () => {
  it("tells a triple fault as a shutdown, and of nothing else afterwards", async () => {
    // int3 without a table
    const cpu = await flat([0x90, 0xcc, HLT], {}, { rax: 0x42n })
    const reason = await reasonOf(cpu.run())
    assert.strictEqual(reason._tag, "Shutdown")
    assert.strictEqual(cpu.status, "Failed")
    assert.deepStrictEqual(await reasonOf(cpu.run()), reason)
    assert.throws(() => cpu.setRegisters(VcpuRegisters.flat32({ entry: 0 })), CpuError)
    assert.throws(() => cpu.reset(), CpuError)
    // What is left can be looked at.
    assert.strictEqual(cpu.getRegisters().gprs.rax, 0x42n)
    assert.strictEqual(cpu.memory.read(ENTRY, 1)[0], 0x90)
    cpu.memory.write(ENTRY, Uint8Array.of(1))
    cpu.requestStop()
    cpu.setInterruptLine(1, true)
    cpu.dispose()
    assert.strictEqual(cpu.status, "Disposed")
  })

  it("tells a jump to where no memory is as a shutdown", async () => {
    // mov eax, 0xd0000000; jmp eax
    const cpu = await flat([0xb8, ...le32(0xd000_0000), 0xff, 0xe0])
    const reason = await reasonOf(cpu.run())
    assert.strictEqual(reason._tag === "Shutdown" && reason.cause, "memory access out of bounds")
    cpu.dispose()
  })

  it.each([
    { name: "a port read", code: [0xec], option: "onPortRead" },
    { name: "a port write", code: [0xee], option: "onPortWrite" },
    { name: "an MMIO read", code: [0xa1, ...le32(0xd000_0000)], option: "onMmioRead" },
    { name: "an MMIO write", code: [0xa3, ...le32(0xd000_0000)], option: "onMmioWrite" },
    { name: "the timer hook", code: [0xfb], option: "onTimers" },
    { name: "the clock", code: [], option: "now" }
  ])("ends the CPU when $name throws or rejects", async ({ code, option }) => {
    const defect = new Error("a bug")
    const failures: Array<() => unknown> = [() => {
      throw defect
    }]
    if (code.length > 1 || option.startsWith("onPort")) {
      failures.push(() => Promise.reject(defect))
    }
    for (const fails of failures) {
      let armed = false
      const options: Record<string, () => unknown> = { [option]: () => armed ? fails() : 0 }
      const cpu = await flat([...code, HLT], options)
      armed = true
      const reason = await reasonOf(cpu.run())
      assert.strictEqual(reason._tag === "HandlerFailed" && reason.defect, defect)
      assert.strictEqual(cpu.status, "Failed")
      cpu.dispose()
    }
  })

  it("refuses a second slice, and registers within one", async () => {
    const answer = later<number>()
    const cpu = await flat([0xec, HLT], { onPortRead: () => answer.promise })
    const end = cpu.run()
    assert.strictEqual((await reasonOf(cpu.run()))._tag, "NotStopped")
    assert.throws(() => cpu.getRegisters(), /getRegisters needs a stopped CPU/)
    assert.throws(() => cpu.setRegisters(VcpuRegisters.flat32({ entry: 0 })), /setRegisters needs a stopped CPU/)
    assert.throws(() => cpu.reset(), /reset needs a stopped CPU/)
    answer.resolve(1)
    assert.deepStrictEqual(await end, { _tag: "Dead" })
    cpu.dispose()
  })

  it.each([0, -4096, 4095, 4096.5, Number.NaN, 2 ** 31, Number.POSITIVE_INFINITY])(
    "refuses %d bytes of RAM",
    async (memoryBytes) => {
      const module = await CpuModule.installed()
      assert.throws(() => Cpu.make(module, { ...bare(), memoryBytes }), /guest RAM of .* cannot be had/)
    }
  )
})

describe("dispose", () => {
  it("rejects a slice that waits, and the guest executes nothing more", async () => {
    const answer = later<number>()
    let writes = 0
    // in al, dx; out dx, al; hlt
    const cpu = await flat([0xec, 0xee, HLT], {
      onPortRead: () => answer.promise,
      onPortWrite: () => {
        writes += 1
      }
    })
    const end = cpu.run()
    cpu.dispose()
    cpu.dispose()
    assert.deepStrictEqual(await reasonOf(end), { _tag: "Disposed" })
    answer.resolve(1)
    await new Promise((resolve) => setImmediate(resolve))
    assert.strictEqual(writes, 0)
    assert.strictEqual(cpu.status, "Disposed")
    assert.strictEqual(cpu.memory.byteLength, 0)
    assert.strictEqual((await reasonOf(cpu.run()))._tag, "Disposed")
    assert.throws(() => cpu.memory.read(0, 1), CpuError)
    assert.throws(() => cpu.getRegisters(), /disposed/)
  })

  it("from within a handler rejects the slice", async () => {
    const cpu: Cpu.Cpu = await flat([0xee, 0xeb, 0xfd], { onPortWrite: () => cpu.dispose() })
    assert.deepStrictEqual(await reasonOf(cpu.run()), { _tag: "Disposed" })
  })

  it("frees the memory: many CPUs one after the other need no more than a few", async () => {
    const bytes = 32 * MEGABYTE
    const before = process.memoryUsage.rss()
    for (let round = 0; round < 60; round++) {
      const cpu = await flat([HLT], { memoryBytes: bytes })
      cpu.memory.fill(2 * MEGABYTE, bytes - 2 * MEGABYTE, 0x55)
      await cpu.run()
      cpu.dispose()
    }
    assert.isBelow(process.memoryUsage.rss() - before, 20 * bytes)
  })
})
