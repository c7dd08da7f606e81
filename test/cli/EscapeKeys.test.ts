import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as EscapeKeys from "../../src/cli/EscapeKeys.ts"

// The keys that matter, often; all others, sometimes.
const key = Schema.Union([
  Schema.Literals([0x01, 0x03, 0x61, 0x63, 0x68, 0x78]),
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
])
const keys = Arbitrary.array(Arbitrary.schema(key), { maxLength: 40 })

const run = (...chunks: ReadonlyArray<ReadonlyArray<number>>) => {
  let state = EscapeKeys.initial
  const actions: Array<EscapeKeys.Action> = []
  for (const chunk of chunks) {
    const [next, more] = EscapeKeys.step(state, Uint8Array.from(chunk))
    state = next
    actions.push(...more)
  }
  return actions
}

/** Actions key by key: how typed bytes are grouped is no difference. */
const flat = (actions: ReadonlyArray<EscapeKeys.Action>) =>
  actions.flatMap((action): Array<number | string> => action._tag === "Type" ? [...action.bytes] : [action._tag])

const typed = (text: string) => Array.from(text, (character) => character.charCodeAt(0))

describe("EscapeKeys", () => {
  it("gives each key its meaning", () => {
    assert.deepStrictEqual(flat(run(typed("ls\r"))), typed("ls\r"))
    assert.deepStrictEqual(flat(run(typed("a\x03b"))), [0x61, "Interrupt", 0x62])
    assert.deepStrictEqual(flat(run(typed("\x01x"))), ["Quit"])
    assert.deepStrictEqual(flat(run(typed("\x01c"))), [0x03])
    assert.deepStrictEqual(flat(run(typed("\x01\x01"))), [0x01])
    assert.deepStrictEqual(flat(run(typed("\x01a"))), [0x01])
    assert.deepStrictEqual(flat(run(typed("\x01hx"))), ["Help", 0x78])
    assert.deepStrictEqual(flat(run(typed("\x01?"))), ["Help"])
    assert.deepStrictEqual(flat(run(typed("\x01\x03"))), ["Interrupt"])
  })

  it("types bytes that follow one another at once", () => {
    assert.deepStrictEqual(run(typed("abc")), [{ _tag: "Type", bytes: Uint8Array.from(typed("abc")) }])
  })

  it.prop("does not care how the keys are cut into chunks", [keys, keys], ([first, second]) => {
    assert.deepStrictEqual(flat(run(first, second)), flat(run([...first, ...second])))
  })

  it.prop("leaves everything without Ctrl-A and Ctrl-C alone", [keys], ([all]) => {
    const plain = all.filter((byte) => byte !== 0x01 && byte !== 0x03)
    assert.deepStrictEqual(flat(run(plain)), plain)
  })

  it.prop("can send every byte to the guest", [keys], ([all]) => {
    const escaped = all.flatMap((byte) => byte === 0x01 ? [0x01, 0x01] : byte === 0x03 ? [0x01, 0x63] : [byte])
    assert.deepStrictEqual(flat(run(escaped)), all)
  })
})
