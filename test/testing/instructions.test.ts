/**
 * Every instruction of the simulated vCPU's subset against the emulated one, in random sequences: registers, defined
 * flags and memory are the same afterwards.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Arbitrary from "effect/Arbitrary"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import { buildEmulated, buildSimulated } from "./hypervisors.ts"
import { generate } from "./instructions.ts"

const RAM = 0x1_0000
const byte = Generator.integer(0, 0xff)
const seed = Arbitrary.all({
  kind: Generator.integer(0, 19),
  a: byte,
  b: byte,
  c: byte,
  value: Generator.integer(0, 0xffff_ffff)
})

/** Fills the scratch memory, so that it is not all zero before the code under test. */
const fill = Buffer.from(
  // push edi; mov edi, SCRATCH; mov ecx, 0x400; mov eax, 0x8136f412; stosd; add eax, 0x9db13039; loop; pop edi
  `57 bf 00800000 b9 00040000 b8 12f43681 ab 05 3930b19d e2 f8 5f`.replaceAll(" ", ""),
  "hex"
)

/** Whether the code comes to the same on both when it is run `times` times in a row. */
const sameOnBoth = (times: number, runs: number) =>
  Effect.gen(function*() {
    const simulated = yield* buildSimulated
    const emulated = yield* buildEmulated
    const result = yield* Arbitrary.checkEffect(
      Arbitrary.array(seed, { maxLength: 60 }),
      (seeds) =>
        Effect.gen(function*() {
          const { bytes, defined } = generate(seeds)
          // CLC, since a round may leave the carry undefined, which the next one might read.
          const body = [{ _tag: "Code", bytes: Uint8Array.of(0xf8, ...bytes) } as const]
          const program = Result.getOrThrow(GuestProgram.assemble(
            [{ _tag: "Code", bytes: fill }, ...times === 1 ? body : [{ _tag: "Loop", times, body } as const]],
            { memoryBytes: RAM }
          ))
          const a = yield* Effect.provide(GuestRun.run(program, Effect.void), simulated)
          const b = yield* Effect.provide(GuestRun.run(program, Effect.void), emulated)
          return a.end._tag === "Halted" && b.end._tag === "Halted" &&
            Buffer.compare(a.memory, b.memory) === 0 && sameRegisters(a, b, times === 1 ? defined : 0)
        }),
      { runs, size: 60 }
    )
    assert.isUndefined(Arbitrary.formatCheckFailure(result))
  })

const sameRegisters = (a: GuestRun.GuestRun, b: GuestRun.GuestRun, flags: number): boolean =>
  a.registers.rip === b.registers.rip &&
  (a.registers.rflags & BigInt(flags)) === (b.registers.rflags & BigInt(flags)) &&
  Object.entries(a.registers.gprs).every(([name, value]) =>
    b.registers.gprs[name as keyof typeof b.registers.gprs] === value
  )

describe("Simulated and Emulated", () => {
  it.effect("execute the same instructions the same way", () => sameOnBoth(1, 200))

  // Often enough for the emulated core to compile the code.
  it.effect("execute them the same way when they are compiled", () => sameOnBoth(10_000, 40))
})
