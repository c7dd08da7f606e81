/** Guest programs as 64-bit code: how they lie in memory, and what they are made of. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import { profile } from "../../src/testing/TestMachine.ts"

type Operations = ReadonlyArray<GuestProgram.OperationInput>

const TABLE_BYTES = 0x6000

const reasonOf = (operations: Operations, options: GuestProgram.AssembleOptions) => {
  const assembled = GuestProgram.assemble(operations, options)
  return Result.isFailure(assembled) ? assembled.failure.reason._tag : undefined
}

const isWide = (operation: GuestProgram.Operation): boolean =>
  operation._tag === "Loop" ? operation.body.some(isWide) : "size" in operation && operation.size === 8

const missing = spawnSync("objdump", ["--version"]).status === 0
  ? ""
  : " (skipped: objdump, which disassembles them, is not installed)"

/** The instructions of a program of one vCPU, without their addresses: where one jumps to is a number of its line. */
const instructionsOf = (operations: Operations, mode: GuestProgram.Mode): Array<string> => {
  const { plan: { segments }, registers: { rip } } = Result.getOrThrow(GuestProgram.assemble(operations, { mode }))
  const folder = mkdtempSync(join(tmpdir(), "upcall-program-"))
  try {
    const file = join(folder, "code")
    writeFileSync(file, segments[0]!.bytes.subarray(Number(rip) - segments[0]!.address))
    const machine = mode === "Long64" ? "i386:x86-64" : "i386"
    const tool = ["-D", "-w", "-z", "-b", "binary", "-m", machine, "-M", "intel", `--adjust-vma=${rip}`, file]
    const { stdout } = spawnSync("objdump", tool, { encoding: "utf8" })
    const lines = Array.from(stdout.matchAll(/^ +([0-9a-f]+):\t[0-9a-f ]+\t(.*)$/gm), ([, at, text]) => ({ at, text }))
    const texts = lines.map(({ text }) => {
      const [, jump, target] = /^(j\w+) +0x([0-9a-f]+)$/.exec(text!) ?? []
      return jump === undefined
        ? text!.replaceAll(/ +/g, " ").trim()
        : `${jump} ${lines.findIndex(({ at }) => at === target)}`
    })
    // Zeros fill the place up to the results.
    return texts.slice(0, texts.lastIndexOf("hlt") + 1)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** As 32-bit code is shown: the registers of addresses and of the stack are narrower, and so are addresses. */
const asNarrow = (instruction: string): string =>
  instruction.replaceAll(/\br(di|si)\b/g, "e$1").replace(/^(push|pop) r/, "$1 e").replace(/^movabs /, "mov ")

describe("guest programs as 64-bit code", () => {
  it.prop("lie apart, and behind them are page tables that all vCPUs share", [
    Arbitraries.guestPrograms(profile, { mode: "Long64", maxVcpus: 16 })
  ], ([lists]) => {
    const { plan, vcpus } = Result.getOrThrow(GuestProgram.assembleAll(lists, { mode: "Long64", profile }))
    const tables = plan.segments.at(-1)!
    let end = 0
    for (const { end: next, registers, resultAddress, resultBytes, resultEnd } of vcpus) {
      assert.isTrue(Result.isSuccess(VcpuRegisters.check(registers)))
      assert.strictEqual(VcpuRegisters.modeOf(registers), "Long64")
      assert.strictEqual(Number(registers.cr3), tables.address)
      assert.strictEqual(Number(registers.gprs.rsp), end + 4096)
      assert.isAtLeast(resultEnd, end + 4096)
      assert.isAbove(Number(registers.rip), resultEnd)
      assert.strictEqual(Number(registers.gprs.rdi), resultAddress)
      assert.isAtMost(resultAddress + resultBytes, next)
      end = next
    }
    assert.strictEqual(tables.address, end)
    assert.strictEqual(tables.bytes.length, TABLE_BYTES)
    assert.strictEqual(plan.memoryBytes, end + TABLE_BYTES)
  })

  it.prop("alone take 8 bytes at a time", [Arbitraries.guestProgram({ mode: "Long64" })], ([operations]) => {
    assert.isUndefined(reasonOf(operations, { mode: "Long64" }))
    assert.strictEqual(reasonOf(operations, {}), operations.some(isWide) ? "TooWide" : undefined)
  })

  it.effect("are generated with loads, stores and results of 8 bytes", () =>
    Effect.gen(function*() {
      const samples = yield* Generator.sample(Arbitraries.guestProgram({ mode: "Long64", maxDepth: 0 }), {
        count: 200,
        seed: 1
      })
      const wide = samples.flat().filter(isWide)
      assert.sameMembers([...new Set(wide.map(({ _tag }) => _tag))], ["Keep", "Load", "Store"])
      assert.isTrue(wide.some((operation) => operation._tag === "Store" && typeof operation.value === "bigint"))
      assert.isTrue(wide.some((operation) => operation._tag === "Store" && operation.value === undefined))
    }))

  it("are refused for what they cannot be", () => {
    assert.strictEqual(reasonOf([{ _tag: "Keep", size: 8 }], {}), "TooWide")
    assert.strictEqual(reasonOf([{ _tag: "Keep", size: 2 as 4 }], { mode: "Long64" }), "BadOperation")
    assert.strictEqual(
      reasonOf([{ _tag: "Store", address: 0, size: 4, value: 1n }], { mode: "Long64" }),
      "BadOperation"
    )
    assert.strictEqual(
      reasonOf([{ _tag: "Store", address: 0, size: 8, value: 1n << 64n }], { mode: "Long64" }),
      "BadOperation"
    )
    assert.strictEqual(reasonOf([{ _tag: "PortIn", port: 0, size: 8 as 4 }], { mode: "Long64" }), "BadOperation")
    const narrow = { ...profile, modes: ["Real", "Protected32"] as const }
    assert.strictEqual(reasonOf([], { mode: "Long64", profile: narrow }), "Beyond")
    assert.isUndefined(reasonOf([], { mode: "Long64", profile: { ...profile, modes: ["Long64"] } }))
    assert.strictEqual(reasonOf([], { mode: "Long64", memoryBytes: 0x2000 + TABLE_BYTES - 1 }), "TooBig")
    assert.isUndefined(reasonOf([], { mode: "Long64", memoryBytes: 0x2000 + TABLE_BYTES }))
  })

  it.effect.skipIf(missing !== "")(
    `have the instructions of 32-bit code, but for how they reach memory${missing}`,
    () =>
      Effect.gen(function*() {
        const samples = yield* Generator.sample(Arbitraries.guestProgram({ maxLength: 30 }), { count: 25, seed: 4 })
        for (const operations of samples) {
          const same = [...operations, { _tag: "Load", address: 0xffff_fffc, size: 4 }, {
            _tag: "Keep",
            size: 4
          }] as const
          // A load of a byte or two by address alone is shown the same way.
          assert.deepStrictEqual(instructionsOf(same, "Long64").map(asNarrow), instructionsOf(same, "Protected32"))
        }
      })
  )

  it.skipIf(missing !== "")(`take 8 bytes by what only 64-bit code has${missing}`, () => {
    const instructions = instructionsOf([
      { _tag: "Load", address: 0xffff_fff8, size: 8 },
      { _tag: "Store", address: 0xe000_0000, size: 8 },
      { _tag: "Store", address: 8, size: 8, value: 0xffff_ffff },
      { _tag: "Store", address: 8, size: 8, value: 0x1122_3344_5566_7788n },
      { _tag: "Keep", size: 8 },
      { _tag: "Halt" }
    ], "Long64")
    assert.deepStrictEqual(instructions.slice(0, 9), [
      "movabs rax,ds:0xfffffff8",
      "movabs ds:0xe0000000,rax",
      "mov eax,0xffffffff",
      "movabs ds:0x8,rax",
      "movabs rax,0x1122334455667788",
      "movabs ds:0x8,rax",
      "stos QWORD PTR es:[rdi],rax",
      "mov DWORD PTR ds:0x1000,edi",
      "cli"
    ])
  })
})
