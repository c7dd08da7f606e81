import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as IrqLineWord from "../../../src/domain/abi/IrqLineWord.ts"
import { U32, U64 } from "../../../src/domain/abi/Unsigned.ts"

describe("IrqLineWord", () => {
  it.prop("the word is the structure's eight bytes", [U32, U32], ([gsi, op]) => {
    const bytes = Result.getOrThrow(IrqLineWord.IrqLineWord.encode({ gsi, op }))
    const word = new DataView(bytes.buffer).getBigUint64(0, true)
    assert.strictEqual(IrqLineWord.toWord({ gsi, op }), word)
    assert.deepStrictEqual(IrqLineWord.fromWord(word), { gsi, op })
  })

  it.prop("every word is one line and operation", [U64], ([word]) => {
    assert.strictEqual(IrqLineWord.toWord(IrqLineWord.fromWord(word)), word)
  })
})
