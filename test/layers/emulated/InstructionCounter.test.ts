import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { CoreMemory } from "../../../src/layers/emulated/CoreMemory.ts"
import { BATCH_INSTRUCTIONS, CpuOffsets } from "../../../src/layers/emulated/CpuOffsets.ts"
import { InstructionCounter } from "../../../src/layers/emulated/InstructionCounter.ts"

const WORD = CpuOffsets.instructionCounter / 4

const Step = Schema.Struct({
  ran: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 31 })),
  next: Schema.Literals(["nothing", "read", "hurry", "begin", "reset"])
})

describe("InstructionCounter", () => {
  it.effect.prop(
    "counts what the core ran, although its word wraps, is hurried and is reset",
    [Arbitrary.array(Arbitrary.schema(Step), { maxLength: 40 })],
    ([steps]) =>
      Effect.sync(() => {
        const memory = new CoreMemory({ buffer: new ArrayBuffer(1024) })
        const counter = new InstructionCounter(memory)
        let ran = 0
        let hurried = false
        for (const step of steps) {
          ran += step.ran
          memory.words[WORD] = (memory.words[WORD] ?? 0) + step.ran
          const before = memory.words[WORD] ?? 0
          assert.strictEqual(counter.total, ran)
          switch (step.next) {
            case "hurry":
              counter.hurry()
              // Once in a batch is enough.
              assert.strictEqual(memory.words[WORD], hurried ? before : before + BATCH_INSTRUCTIONS | 0)
              hurried = true
              break
            case "begin":
              counter.batchBegins()
              hurried = false
              break
            case "reset":
              counter.resets()
              memory.words[WORD] = 0
              break
            default:
              break
          }
          assert.strictEqual(counter.total, ran)
        }
      })
  )
})
