import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Keystrokes from "../../src/cli/Keystrokes.ts"

const escape = (text: string) =>
  text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\r", "\\r").replaceAll("\t", "\\x09")

describe("Keystrokes", () => {
  it("takes text as it is, and the escapes of C", () => {
    assert.deepStrictEqual(Keystrokes.parse(""), Result.succeed(""))
    assert.deepStrictEqual(Keystrokes.parse("echo $((6*7))"), Result.succeed("echo $((6*7))"))
    assert.deepStrictEqual(Keystrokes.parse("a\\n\\r\\t\\\\n\\x1B[A"), Result.succeed("a\n\r\t\\n\x1b[A"))
  })

  it("refuses a backslash that means nothing", () => {
    for (const text of ["\\", "a\\q", "\\x1", "\\xzz", "\\0"]) {
      assert.isTrue(Result.isFailure(Keystrokes.parse(text)), text)
    }
  })

  it.prop("reads back any text that was escaped", [Schema.String], ([text]) => {
    assert.deepStrictEqual(Keystrokes.parse(escape(text)), Result.succeed(text))
  })
})
