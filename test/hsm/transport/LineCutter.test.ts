import { assert, describe, it } from "@effect/vitest"
import { LineCutter } from "./LineCutter.ts"

const cut = (...parts: ReadonlyArray<Uint8Array>): ReadonlyArray<string> => {
  const lines: Array<string> = []
  const cutter = new LineCutter((line) => lines.push(line))
  for (const part of parts) cutter.push(part)
  cutter.end()
  return lines
}

describe("LineCutter", () => {
  const text = new TextEncoder().encode("one\r\n\nzw\u00f6lf \u20ac\nlast")

  it("gives the same lines wherever the bytes are cut", () => {
    for (let at = 0; at <= text.length; at++) {
      assert.deepStrictEqual(cut(text.subarray(0, at), text.subarray(at)), ["one", "", "zw\u00f6lf \u20ac", "last"])
    }
  })

  it("has no line after a last line end", () => {
    assert.deepStrictEqual(cut(new TextEncoder().encode("one\n")), ["one"])
    assert.deepStrictEqual(cut(), [])
  })
})
