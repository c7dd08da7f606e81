import { assert, describe, it } from "@effect/vitest"
import * as Registers from "../../src/cli/Registers.ts"
import { VcpuId } from "../../src/domain/Address.ts"
import { EndReason } from "../../src/domain/EndReason.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"

const flat = VcpuRegisters.flat32({ entry: 0x1000, stack: 0x8000, gprs: { rax: 0xdead_beefn } })

describe("registers for people", () => {
  it("of 32-bit code are as wide as that code sees them", () => {
    assert.strictEqual(
      Registers.format(1, { ...flat, rflags: 0x246n }),
      [
        "vCPU 1 in 32-bit mode without paging",
        "rax deadbeef  rbx 00000000  rcx 00000000  rdx 00000000",
        "rsi 00000000  rdi 00000000  rbp 00000000  rsp 00008000",
        "cr0 00000031  cr3 00000000  cr4 00000000  efer 0000",
        "rip 00001000  rflags 00000246 pf zf if",
        "cs  0010 base 00000000 limit ffffffff attributes c09b",
        "ss 0018  ds 0018  es 0018  fs 0018  gs 0018  ldt 0000  tr 0000",
        "gdt 00000000 limit 0000  idt 00000000 limit 0000"
      ].join("\n")
    )
  })

  it("of 64-bit code are all there", () => {
    const text = Registers.format(0, VcpuRegisters.long64({ entry: 0x1000, pageTables: 0x3000, gprs: { r15: 5n } }))
    assert.include(text, "vCPU 0 in 64-bit mode")
    assert.match(text, /^r12 0{16} {2}r13 0{16} {2}r14 0{16} {2}r15 0{15}5$/m)
    assert.match(text, /^rip 0000000000001000 {2}rflags 00000002$/m)
  })

  it("tell the mode", () => {
    const paging = { ...flat, cr0: flat.cr0 | VcpuRegisters.Cr0.Paging }
    assert.include(Registers.format(0, paging), "32-bit mode with paging")
    assert.include(Registers.format(0, VcpuRegisters.realMode({ ip: 0 })), "real mode")
  })

  it.prop("have every word, whatever they are", [VcpuRegisters.VcpuRegisters], ([registers]) => {
    const text = Registers.format(0, registers)
    for (const word of [...Object.values(registers.gprs), registers.rip, registers.cr3, registers.idt.base]) {
      if (word > 0n) assert.include(text, word.toString(16))
    }
    for (const line of text.split("\n")) assert.isBelow(line.length, 120)
  })

  it.prop("come with an end that has them", [EndReason], ([reason]) => {
    const isThere = "registers" in reason && reason.registers !== undefined
    assert.strictEqual(Registers.ofReason(reason) !== undefined, isThere)
  })

  it("are those of the vCPU because of which the guest ended", () => {
    const reason = { _tag: "InternalError", vcpu: VcpuId.make(2), cause: "emulation", registers: flat } as const
    assert.match(Registers.ofReason(reason)!, /^vCPU 2 in/)
  })
})
