/** That the list of bug classes, the markers in src, the tests here and the table in docs/protocol.md tell the same. */
import { assert, describe, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { findGuards, guardsIn } from "../../scripts/guards/markers.ts"
import { roleOf } from "../../scripts/guards/removal.ts"
import { makeTable, tableIn } from "../../scripts/guards/table.ts"
import { findMismatches, judge } from "../../scripts/guards/verdict.ts"
import { type BugClass, bugClasses } from "./classes.ts"

const guards = findGuards()
const THIS_FILE = "classes.test.ts"

describe("bug classes", () => {
  it("each has a guard and a test, and nothing else is marked or named so", () => {
    const files = globSync("*.test.ts", { cwd: import.meta.dirname }).filter((file) => file !== THIS_FILE)
    assert.deepStrictEqual(findMismatches(bugClasses, guards, files), [])
  })

  it("docs/protocol.md has the table; `npm run guards -- --write` renews it", () => {
    const document = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8")
    assert.strictEqual(tableIn(document), makeTable(bugClasses, guards))
  })
})

describe("the guards script", () => {
  const source = `
class Page {
  // Guard: a
  // Why it is here.
  drop(index: number): void { this.clear(index) }

  look(index: number): boolean {
    // Guard: a, b
    if (index < 0 || index > 15) return false
    // Guard: b
    try { this.clear(index) } catch (defect) { this.report(defect) }
    return this.isHeld &&
      // Guard: a
      this.word(index) === 2
  }
}
`
  const found = guardsIn("src/Page.ts", source)
  const textOf = ({ end, start }: (typeof found)[number]) =>
    source.split("\n").slice(start.line - 1, end.line).join("\n").slice(start.column, end.column)

  it("finds what a marker stands above, and what is left when it is taken out", () => {
    assert.deepStrictEqual(
      found.map((guard) => [guard.classes.join(), guard.symbol, textOf(guard), guard.replacement]),
      [
        ["a", "Page.drop", "{ this.clear(index) }", "{}"],
        ["a,b", "Page.look", "index < 0 || index > 15", "false"],
        ["b", "Page.look", "{ this.report(defect) }", "{}"],
        ["a", "Page.look", "this.word(index) === 2", "true"]
      ]
    )
  })

  it("a marker above nothing is refused by file and line", () => {
    assert.throws(() => guardsIn("src/x.ts", "// Guard: a\nconst x = 1\n"), "src/x.ts:1")
  })

  it("tells a guard that is taken out from a part of its condition, and from any other mutant", () => {
    const guard = found[1]!
    const { end, file, start } = guard
    const mutation = { file, start, end, mutator: "ConditionalExpression", replacement: "false" }
    assert.strictEqual(roleOf(guard, mutation), "Whole")
    assert.strictEqual(roleOf(guard, { ...mutation, end: { ...end, column: start.column + 9 } }), "Part")
    assert.isUndefined(roleOf(guard, { ...mutation, replacement: "true" }))
    assert.isUndefined(roleOf(guard, { ...mutation, end: { ...end, column: end.column + 1 } }))
    assert.isUndefined(roleOf(guard, { ...mutation, file: "src/Other.ts" }))
  })

  const bug = (id: string): BugClass => ({ id, title: "", source: "", instead: "", test: `${id}.test.ts` })
  const removal = (status: string, killedBy: ReadonlyArray<string>) => [
    { guard: found[1]!, role: "Whole" as const, line: 9, column: 8, status, killedBy }
  ]

  it("a guard is caught when a test of each of its classes fails without it", () => {
    const problemsOf = (status: string, ...killedBy: ReadonlyArray<string>) =>
      judge(found[1]!, [bug("a"), bug("b")], removal(status, killedBy)).problems.length
    assert.strictEqual(problemsOf("Killed", "a.test.ts#one", "b.test.ts#two"), 0)
    assert.strictEqual(problemsOf("Killed", "a.test.ts#one"), 1)
    assert.strictEqual(problemsOf("Timeout"), 2)
    assert.strictEqual(judge(found[1]!, [bug("a"), bug("b")], []).problems.length, 1)
  })

  it("classes without guards, markers without classes, and tests without either are told", () => {
    assert.strictEqual(findMismatches([bug("a"), bug("c")], found, ["a.test.ts", "d.test.ts"]).length, 5)
  })
})
