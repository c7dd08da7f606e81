import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as FlatBinary from "../../../src/layers/images/FlatBinary.ts"
import { assertSound, MiB, refusal, soundOrRefused } from "./support.ts"

const hello = readFileSync(join(import.meta.dirname, "../../../guests/hello/hello.bin"))

const plan = (changes: Partial<FlatBinary.Options>) =>
  FlatBinary.plan({ name: "guest.bin", bytes: new Uint8Array(16), address: 0x1000, memoryBytes: MiB, ...changes })

describe("FlatBinary", () => {
  it.effect("plans the hello guest", () =>
    Effect.gen(function*() {
      const made = yield* FlatBinary.plan({ bytes: hello, address: 0x1000, memoryBytes: MiB })
      assertSound(made, MiB)
      assert.deepStrictEqual(made.segments.map(({ address, name }) => [name, address]), [[
        "flat binary",
        0x1000
      ]])
      assert.strictEqual(made.registers.rip, 0x1000n)
      assert.strictEqual(made.registers.gprs.rsp, BigInt(MiB))
      assert.deepStrictEqual([made.registers.csSel, made.registers.dsSel, made.registers.ssSel], [0x08, 0x10, 0x10])
    }))

  it.effect("puts the stack below an image that ends at the end of the memory", () =>
    Effect.gen(function*() {
      const made = yield* plan({ bytes: new Uint8Array(8192), address: MiB - 8192 })
      assert.strictEqual(made.registers.gprs.rsp, BigInt(MiB - 8192))
    }))

  it.effect("takes a stack and an entry as given", () =>
    Effect.gen(function*() {
      const made = yield* plan({ entry: 0x100f, stack: 0x1010 })
      assert.strictEqual(made.registers.rip, 0x100fn)
      assert.strictEqual(made.registers.gprs.rsp, 0x1010n)
    }))

  it.effect("keeps a stack at the end of 4 GiB within 32 bits", () =>
    Effect.gen(function*() {
      const made = yield* plan({ memoryBytes: 2 ** 33 })
      assert.strictEqual(made.registers.gprs.rsp, 0xffff_fff0n)
    }))

  it.effect("starts 64-bit code on page tables beside image and stack", () =>
    Effect.gen(function*() {
      const made = yield* plan({ mode: "Long64" })
      assertSound(made, MiB)
      assert.strictEqual(made.registers.rip, 0x1000n)
      assert.strictEqual(made.registers.gprs.rsp, BigInt(MiB))
      assert.strictEqual(made.registers.cr3, 0x2000n)
      assert.deepStrictEqual([made.registers.csSel, made.registers.dsSel, made.registers.ssSel], [0x10, 0x18, 0x18])
      assert.deepStrictEqual(made.segments.map(({ name }) => name), ["guest.bin", "page tables", "GDT"])
      const low = yield* plan({ mode: "Long64", address: 0x8000, stack: 0x9_0000 })
      assertSound(low, MiB)
      assert.strictEqual(low.registers.cr3, 0x1000n)
      const tables = 24 * 1024 + 32
      const exact = yield* plan({ mode: "Long64", address: 0x1000 + tables })
      assertSound(exact, MiB)
      assert.strictEqual(exact.registers.cr3, 0x1000n)
      const oneLess = yield* plan({ mode: "Long64", address: 0x1000 + tables - 1 })
      assertSound(oneLess, MiB)
      assert.strictEqual(oneLess.registers.cr3, 0x8000n)
    }))

  const cases: ReadonlyArray<readonly [name: string, changes: Partial<FlatBinary.Options>, message: string]> = [
    ["no bytes", { bytes: new Uint8Array() }, "guest.bin is empty; see that it was read or downloaded whole"],
    [
      "an image beyond the memory",
      { address: MiB - 8 },
      "guest.bin: the image needs 16 bytes in guest memory from 0xffff8 up to 0x100000, where only 8 are; " +
      "give the VM at least 1052672 bytes of memory, or a smaller image"
    ],
    [
      "an image beyond 4 GiB",
      { address: 2 ** 32 - 8, memoryBytes: 2 ** 33 },
      "guest.bin: the image needs 16 bytes in guest memory from 0xfffffff8 up to 0x100000000, where only 8 are; " +
      "use a smaller one"
    ],
    [
      "no room for a stack",
      { bytes: new Uint8Array(MiB), address: 0 },
      "guest.bin: a stack beside the image needs 4096 bytes in guest memory from 0x100000 on, but must end by " +
      "0x100000; give the VM at least 1052672 bytes of memory, or a smaller image"
    ],
    [
      "no room for page tables",
      { bytes: new Uint8Array(0x7_f000), address: 0, mode: "Long64", memoryBytes: 0x8_0000 },
      "guest.bin: a set of page tables for 64-bit mode, beside the image and its stack, needs 24608 bytes in " +
      "guest memory from 0x80000 on, but must end by 0x80000; give the VM at least 552960 bytes of memory, or a smaller " +
      "image"
    ],
    ["a fractional address", { address: 0.5 }, "address is 0.5; pass an integer from 0 to 0xffffffff"],
    ["a negative address", { address: -1 }, "address is -1; pass an integer from 0 to 0xffffffff"],
    [
      "an entry outside the image",
      { entry: 0x1010 },
      "entry is 4112; pass an address inside the image, 4096 to 4111"
    ],
    ["an odd stack", { stack: 0x2001 }, "stack is 8193; pass a multiple of 4 from 4 to 1048576"],
    ["a stack beyond the memory", { stack: 2 * MiB }, "stack is 2097152; pass a multiple of 4 from 4 to 1048576"],
    [
      "memory that is not whole pages",
      { memoryBytes: 5000 },
      "memoryBytes is 5000; pass a multiple of 4096 from 4096 to 4503599627370496"
    ],
    [
      "memory that is no number",
      { memoryBytes: NaN },
      "memoryBytes is NaN; pass a multiple of 4096 from 4096 to 4503599627370496"
    ]
  ]
  for (const [name, changes, message] of cases) {
    it.effect(`refuses ${name}`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* refusal(plan(changes)), message)
      }))
  }

  const near = (top: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: top }))
  const address = Schema.Union([near(0x1_2000), Schema.Number])

  it.effect.prop(
    "any bytes anywhere give a plan inside the memory or a typed error",
    {
      length: Arbitrary.schema(near(0x3000)),
      address: Arbitrary.schema(address),
      entry: Arbitrary.schema(Schema.UndefinedOr(address)),
      stack: Arbitrary.schema(Schema.UndefinedOr(address)),
      mode: Arbitrary.schema(Schema.Literals(["Protected32", "Long64"])),
      memoryBytes: Arbitrary.schema(
        Schema.Union([Schema.Literals([0x1000, 0x4000, 0x1_0000, 0x10_0000, 2 ** 32, 2 ** 40]), Schema.Number])
      )
    },
    ({ length, ...options }) =>
      soundOrRefused(FlatBinary.plan({ bytes: new Uint8Array(length), ...options }), options.memoryBytes),
    {
      arbitrary: { runs: 1000 }
    }
  )
})
