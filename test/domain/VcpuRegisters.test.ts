import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Result, Schema } from "effect"
import { U64 } from "../../src/domain/abi/Unsigned.ts"
import { Regs } from "../../src/domain/abi/VcpuRegs.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"

// Written out here once more, so that a wrong bit in the module's tables shows: all bits a guest may set.
const CR0_GUEST_BITS = 0xe005_003fn
const CR4_GUEST_BITS = 0x017f_1fffn
const CR0_NE = 0x20n
const ALL_ONES = 0xffff_ffff_ffff_ffffn

const reasonOf = (registers: VcpuRegisters.VcpuRegisters) => {
  const checked = VcpuRegisters.check(registers)
  return Result.isFailure(checked) ? checked.failure.reason : undefined
}

const flat = VcpuRegisters.flat32({ entry: 0x10_0000 })

/** Control registers made of legal bits only. */
const legal = Arbitrary.map(
  Arbitrary.all([Arbitrary.schema(U64), Arbitrary.schema(U64)]),
  ([cr0, cr4]) => ({ cr0: cr0 & CR0_GUEST_BITS | CR0_NE, cr4: cr4 & CR4_GUEST_BITS })
)

describe("VcpuRegisters", () => {
  it.prop("is exactly what acrn_regs can carry", [VcpuRegisters.VcpuRegisters], ([registers]) => {
    const bytes = Result.getOrThrow(Regs.encode(registers))
    assert.deepStrictEqual(Result.getOrThrow(Regs.decode(bytes)), registers)
  })

  it.prop("every acrn_regs is a VcpuRegisters", [
    Arbitrary.array(Arbitrary.schema(U64), { minLength: 1, maxLength: 36 })
  ], ([words]) => {
    const bytes = new Uint8Array(BigUint64Array.from({ length: 36 }, (_, index) => words[index % words.length]!).buffer)
    const registers: VcpuRegisters.VcpuRegisters = Result.getOrThrow(Regs.decode(bytes))
    assert.isTrue(Schema.is(VcpuRegisters.VcpuRegisters)(registers))
  })

  it.prop("survives JSON", [VcpuRegisters.VcpuRegisters], ([registers]) => {
    const json = Schema.toCodecJson(VcpuRegisters.VcpuRegisters)
    const text = JSON.stringify(Schema.encodeSync(json)(registers))
    assert.deepStrictEqual(Schema.decodeUnknownSync(json)(JSON.parse(text)), registers)
  })

  describe("constructors", () => {
    it("zero has every bit clear", () => {
      assert.isTrue(Result.getOrThrow(Regs.encode(VcpuRegisters.zero)).every((byte) => byte === 0))
    })

    it("realMode at the reset vector is the processor's state after reset", () => {
      const registers = VcpuRegisters.realMode({ ip: 0xfff0, csBase: 0xffff_0000 })
      assert.strictEqual(registers.csSel, 0xf000)
      assert.strictEqual(registers.csBase, 0xffff_0000n)
      assert.strictEqual(registers.rip, 0xfff0n)
      assert.strictEqual(registers.cr0, 0x30n)
      assert.strictEqual(registers.rflags, 2n)
      assert.strictEqual(registers.csAr, 0x9f)
      assert.strictEqual(registers.csLimit, 0xffff)
      assert.isUndefined(reasonOf(registers))
    })

    it("realMode takes a stack and registers; a register named twice is the one in gprs", () => {
      const registers = VcpuRegisters.realMode({ ip: 0x7c00, sp: 0x7000, gprs: { rdx: 0x80n } })
      assert.deepStrictEqual(registers.gprs, { ...VcpuRegisters.zero.gprs, rsp: 0x7000n, rdx: 0x80n })
      assert.strictEqual(VcpuRegisters.realMode({ ip: 0, sp: 1, gprs: { rsp: 2n } }).gprs.rsp, 2n)
      assert.isUndefined(reasonOf(registers))
    })

    it("flat32 is 32-bit protected mode with flat segments", () => {
      const registers = VcpuRegisters.flat32({
        entry: 0x10_0000,
        stack: 0x8_0000,
        gprs: { rsi: 0x9_0000n },
        gdt: { limit: 31, base: 0x500n }
      })
      assert.strictEqual(registers.cr0, 0x31n)
      assert.strictEqual(registers.csAr, 0xc09b)
      assert.strictEqual(registers.csLimit, 0xffff_ffff)
      assert.strictEqual(registers.rip, 0x10_0000n)
      assert.strictEqual(registers.gprs.rsp, 0x8_0000n)
      assert.strictEqual(registers.gprs.rsi, 0x9_0000n)
      assert.deepStrictEqual(registers.gdt, { limit: 31, base: 0x500n })
      assert.deepStrictEqual(
        [registers.csSel, registers.ssSel, registers.dsSel, registers.esSel, registers.fsSel, registers.gsSel],
        [0x10, 0x18, 0x18, 0x18, 0x18, 0x18]
      )
      assert.isUndefined(reasonOf(registers))
    })

    it("flat32 takes other selectors", () => {
      const registers = VcpuRegisters.flat32({ entry: 0, selectors: { code: 0x8, data: 0x10 } })
      assert.deepStrictEqual([registers.csSel, registers.ssSel], [0x8, 0x10])
    })

    it("long64 is 64-bit mode with paging and SSE on", () => {
      const registers = VcpuRegisters.long64({
        entry: 0x10_0000,
        stack: 0x8_0000,
        pageTables: 0x1000,
        gprs: { rdi: 7n },
        gdt: { limit: 31, base: 0x7000n }
      })
      assert.strictEqual(VcpuRegisters.modeOf(registers), "Long64")
      assert.strictEqual(registers.cr0, 0x8000_0033n)
      assert.strictEqual(registers.cr3, 0x1000n)
      assert.strictEqual(registers.cr4, 0x620n)
      assert.strictEqual(registers.ia32Efer, 0x500n)
      assert.strictEqual(registers.csAr, 0xa09b)
      assert.strictEqual(registers.rip, 0x10_0000n)
      assert.deepStrictEqual(registers.gprs, { ...VcpuRegisters.zero.gprs, rsp: 0x8_0000n, rdi: 7n })
      assert.deepStrictEqual(registers.gdt, { limit: 31, base: 0x7000n })
      assert.deepStrictEqual([registers.csSel, registers.ssSel, registers.gsSel], [0x10, 0x18, 0x18])
      assert.isUndefined(reasonOf(registers))
      assert.isUndefined(reasonOf(VcpuRegisters.long64({ entry: 2 ** 40, pageTables: 0 })), "RIP has 64 bits")
    })

    it.prop("never throw; what fits no register is refused by check", [Schema.Number, Schema.Number], ([a, b]) => {
      const fits = (value: number) => Number.isSafeInteger(value) && value >= 0
      const real = reasonOf(VcpuRegisters.realMode({ ip: a, sp: b, csBase: b }))
      const wide = reasonOf(VcpuRegisters.flat32({ entry: a, stack: b }))
      const long = reasonOf(VcpuRegisters.long64({ entry: a, stack: b, pageTables: b }))
      assert.strictEqual(real === undefined, fits(a) && fits(b) && a <= 0xffff_ffff)
      assert.strictEqual(wide === undefined, fits(a) && fits(b) && a <= 0xffff_ffff)
      assert.strictEqual(long === undefined, fits(a) && fits(b))
    })
  })

  describe("hypercallRefusal", () => {
    it.prop("accepts exactly legal bits with NE set", [U64, U64], ([cr0, cr4]) => {
      const accepted = (cr0 & ~CR0_GUEST_BITS) === 0n && (cr0 & CR0_NE) !== 0n && (cr4 & ~CR4_GUEST_BITS) === 0n
      assert.strictEqual(VcpuRegisters.hypercallRefusal({ cr0, cr4 }) === undefined, accepted)
    })

    it.prop("accepts all legal bits", [legal], ([{ cr0, cr4 }]) => {
      assert.isUndefined(VcpuRegisters.hypercallRefusal({ cr0, cr4 }))
    })

    it("refuses each reserved bit alone, and names it", () => {
      for (let bit = 1n; bit <= ALL_ONES; bit <<= 1n) {
        const cr0 = CR0_NE | bit
        const inCr0 = VcpuRegisters.hypercallRefusal({ cr0, cr4: 0n })
        assert.deepStrictEqual(
          inCr0,
          (bit & CR0_GUEST_BITS) === 0n ? { _tag: "Cr0ReservedBits", cr0, bits: bit } : undefined
        )
        const inCr4 = VcpuRegisters.hypercallRefusal({ cr0: CR0_NE, cr4: bit })
        assert.deepStrictEqual(
          inCr4,
          (bit & CR4_GUEST_BITS) === 0n ? { _tag: "Cr4ReservedBits", cr4: bit, bits: bit } : undefined
        )
      }
    })

    it("refuses CR0.NE clear, so also the zero registers", () => {
      assert.deepStrictEqual(VcpuRegisters.hypercallRefusal(VcpuRegisters.zero), {
        _tag: "Cr0NumericErrorClear",
        cr0: 0n
      })
    })
  })

  describe("check", () => {
    const PE = 1n
    const NW = 1n << 29n
    const CD = 1n << 30n
    const PG = 1n << 31n
    const PAE = 1n << 5n
    const PCIDE = 1n << 17n
    const LME = 1n << 8n
    const long = { ...flat, cr0: flat.cr0 | PG, cr4: PAE, ia32Efer: LME, csAr: 0xa09b }

    it("gives the same registers back", () => {
      assert.strictEqual(Result.getOrThrow(VcpuRegisters.check(flat)), flat)
      assert.strictEqual(Result.getOrThrow(VcpuRegisters.check(long)), long)
    })

    it("refuses what the hypercall refuses", () => {
      assert.strictEqual(reasonOf(VcpuRegisters.zero)?._tag, "Cr0NumericErrorClear")
      assert.strictEqual(reasonOf({ ...flat, cr4: 1n << 13n })?._tag, "Cr4ReservedBits")
    })

    it.prop("refuses PG without PE and NW without CD", [legal], ([{ cr0, cr4 }]) => {
      const reason = reasonOf({ ...flat, cr0, cr4: cr4 & ~PCIDE })?._tag
      if ((cr0 & PG) !== 0n && (cr0 & PE) === 0n) {
        assert.strictEqual(reason, "PagingWithoutProtection")
      } else if ((cr0 & NW) !== 0n && (cr0 & CD) === 0n) {
        assert.strictEqual(reason, "NotWriteThroughWithoutCacheDisable")
      } else {
        assert.isUndefined(reason)
      }
    })

    it("refuses long mode without PAE, and PCIDE outside long mode", () => {
      assert.strictEqual(reasonOf({ ...long, cr4: 0n })?._tag, "LongModeWithoutPae")
      assert.isUndefined(reasonOf({ ...flat, ia32Efer: LME }), "LME alone, before paging, is how a guest gets there")
      assert.strictEqual(reasonOf({ ...flat, cr4: PCIDE })?._tag, "ProcessContextIdsOutsideLongMode")
      assert.isUndefined(reasonOf({ ...long, cr4: PAE | PCIDE }))
    })

    it("allows RIP above 4 GiB in 64-bit mode only", () => {
      const rip = 0x1_0000_0000n
      assert.deepStrictEqual(reasonOf({ ...flat, rip }), { _tag: "InstructionPointerTooWide", rip })
      assert.deepStrictEqual(reasonOf({ ...long, csAr: 0xc09b, rip }), { _tag: "InstructionPointerTooWide", rip })
      assert.isUndefined(reasonOf({ ...long, rip }))
    })

    it("names the field that does not fit", () => {
      assert.deepStrictEqual(reasonOf({ ...flat, csSel: 0x1_0000 }), {
        _tag: "FieldOutOfRange",
        field: "csSel",
        value: 0x1_0000
      })
      assert.deepStrictEqual(reasonOf({ ...flat, gprs: { ...flat.gprs, r9: ALL_ONES + 1n } }), {
        _tag: "FieldOutOfRange",
        field: "gprs.r9",
        value: ALL_ONES + 1n
      })
      assert.strictEqual(reasonOf(undefined as never)?._tag, "FieldOutOfRange")
    })

    it("says what to do", () => {
      const message = (registers: VcpuRegisters.VcpuRegisters) => {
        const checked = VcpuRegisters.check(registers)
        return Result.isFailure(checked) ? checked.failure.message : ""
      }
      assert.strictEqual(
        message({ ...flat, cr0: 0x11n }),
        "CR0 0x11 has NE clear, which a guest cannot; set bit 5 (0x20)"
      )
      assert.include(message({ ...flat, cr0: 0x61n }), "reserved bits 0x40")
      assert.include(message({ ...flat, cr4: 0x2000n }), "bits 0x2000")
      assert.include(message({ ...flat, cr0: 0x8000_0020n }), "PG without PE")
      assert.include(message({ ...flat, cr0: 0x2000_0021n }), "NW without CD")
      assert.include(message({ ...long, cr4: 0n }), "set PAE")
      assert.include(message({ ...flat, cr4: PCIDE }), "PCIDE outside long mode")
      assert.include(message({ ...flat, rip: 1n << 32n }), "RIP 0x100000000")
      assert.include(message({ ...flat, dsSel: -1 }), "register dsSel cannot hold -1")
      assert.include(message({ ...flat, dsSel: Object.create(null) as never }), "a value of type object")
    })
  })
})
