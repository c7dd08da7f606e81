import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { InterruptLines, LINES } from "../../../src/layers/emulated/InterruptLines.ts"

// A line and a level; one in four steps tells the controllers instead.
const step = Schema.Struct({
  line: Schema.Int.check(Schema.isBetween({ minimum: -1, maximum: LINES })),
  high: Schema.Boolean,
  tell: Schema.Literals(["no", "never", "not now", "now"])
})

describe("InterruptLines", () => {
  it.effect.prop(
    "tells a rise if there was one, and always the level that is",
    [Arbitrary.array(Arbitrary.schema(step), { maxLength: 60 })],
    ([steps]) =>
      Effect.sync(() => {
        const lines = new InterruptLines()
        const level = Array.from({ length: LINES }, () => false)
        const rose = Array.from({ length: LINES }, () => false)
        const told = Array.from({ length: LINES }, () => false)
        const tell = (): void => {
          const raised: Array<number> = []
          const changed = lines.changed
          let events = 0
          lines.tell((line) => {
            // An edge-triggered controller sees a rise only of a line that it believes low.
            assert.isFalse(told[line], `line ${line} is raised while high`)
            told[line] = true
            raised.push(line)
            events += 1
          }, (line) => {
            assert.isTrue(told[line], `line ${line} is lowered while low`)
            told[line] = false
            events += 1
          })
          assert.strictEqual(changed, events > 0)
          assert.deepStrictEqual(told, level)
          assert.deepStrictEqual(raised, rose.flatMap((did, line) => did ? [line] : []))
          rose.fill(false)
          assert.isFalse(lines.changed)
        }
        for (const { high, line, tell: when } of steps) {
          lines.set(line, high)
          if (line >= 0 && line < LINES) {
            rose[line] ||= high && level[line] === false
            level[line] = high
          }
          if (when === "now") {
            tell()
          }
        }
        tell()
      })
  )

  it("raises what is high again after it was forgotten", () => {
    const lines = new InterruptLines()
    lines.set(3, true)
    lines.set(5, true)
    lines.tell(() => undefined, () => undefined)
    lines.set(5, false)
    lines.forgotten()
    const raised: Array<number> = []
    lines.tell((line) => raised.push(line), () => assert.fail("nothing is high to be lowered"))
    assert.deepStrictEqual(raised, [3])
  })
})
