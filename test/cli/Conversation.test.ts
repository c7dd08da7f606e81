import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { Conversation, type Step } from "../../src/cli/Conversation.ts"

/** Where, in bytes that were taken, each answer came. */
const hold = (steps: ReadonlyArray<Step>, text: string) => {
  const conversation = new Conversation(steps)
  const answers: Array<readonly [number, string]> = []
  new TextEncoder().encode(text).forEach((byte, index) => {
    const answer = conversation.take(byte)
    if (answer !== undefined) answers.push([index + 1, answer])
  })
  return answers
}

// Few letters, so that texts begin again inside themselves.
const letters = (maxLength: number) =>
  Arbitrary.map(Arbitrary.array(Arbitrary.schema(Schema.Literals(["a", "b"])), { maxLength }), (all) => all.join(""))

describe("Conversation", () => {
  it("answers each text once, in order", () => {
    const steps = [{ waitFor: "login: ", type: "root\n" }, { waitFor: "# ", type: "ls\n" }]
    assert.deepStrictEqual(hold(steps, "# login: # # login: "), [[9, "root\n"], [11, "ls\n"]])
  })

  it("answers an empty text with the next byte", () => {
    assert.deepStrictEqual(hold([{ waitFor: "", type: "u" }, { waitFor: "", type: "v" }], "abc"), [[1, "u"], [2, "v"]])
    assert.deepStrictEqual(hold([], "abc"), [])
  })

  it("waits for text beyond ASCII", () => {
    assert.deepStrictEqual(hold([{ waitFor: "größe: ", type: "1" }], "größe: "), [[9, "1"]])
  })

  it.prop("finds a text where indexOf does", [letters(6), letters(40)], ([wanted, text]) => {
    const at = text.indexOf(wanted)
    const isThere = at >= 0 && text !== ""
    assert.deepStrictEqual(
      hold([{ waitFor: wanted, type: "!" }], text),
      isThere ? [[Math.max(1, at + wanted.length), "!"]] : []
    )
  })
})
