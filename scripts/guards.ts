/**
 * Takes each marked guard out in turn and tells which test of its bug class noticed. Fails when a class has no guard, when
 * a guard can go unnoticed, and when a class's tests notice nothing. `--write` renews the table in docs/protocol.md once
 * all are caught. The last line is JSON: {"classes", "guards", "caught"}.
 */
import { globSync, readFileSync, writeFileSync } from "node:fs"
import { bugClasses } from "../test/regressions/classes.ts"
import { findGuards } from "./guards/markers.ts"
import { takeGuardsOut } from "./guards/mutate.ts"
import { makeTable, withTable } from "./guards/table.ts"
import { findMismatches, judge, type Verdict } from "./guards/verdict.ts"

const FOLDER = "test/regressions"
const DOCUMENT = "docs/protocol.md"

/** What the list, the markers and the table must agree on is checked here too. */
const CHECKS = "classes.test.ts"

const write = (line: string) => process.stdout.write(`${line}\n`)

const report = (verdicts: ReadonlyArray<Verdict>): void => {
  for (const { id, source, test } of bugClasses) {
    write(`\n${id}: ${source}\n  ${FOLDER}/${test}`)
    for (const verdict of verdicts.filter(({ guard }) => guard.classes.includes(id))) {
      const { caughtBy, guard, problems, spareParts } = verdict
      const mark = problems.length === 0 ? "caught" : "NOT CAUGHT"
      write(`  ${mark}  ${guard.file}:${guard.start.line} ${guard.symbol}`)
      for (const problem of problems) write(`            ${problem}`)
      for (const name of caughtBy) write(`            by "${name.split(" > ").slice(1).join(" > ")}"`)
      for (const part of spareParts) {
        write(`            of its condition, the part at ${part} is not needed by these tests`)
      }
    }
  }
}

const guards = findGuards()
const mismatches = findMismatches(
  bugClasses,
  guards,
  globSync("*.test.ts", { cwd: FOLDER }).filter((file) => file !== CHECKS)
)
for (const mismatch of mismatches) write(`WRONG  ${mismatch}`)

const started = performance.now()
const withTests = guards.map((guard) => ({
  ...guard,
  tests: bugClasses.filter(({ id }) => guard.classes.includes(id)).map(({ test }) => `${FOLDER}/${test}`)
}))
const removals = await takeGuardsOut(withTests)
const verdicts = withTests.map((guard) => judge(guard, bugClasses, removals))
report(verdicts)

const caught = verdicts.filter(({ problems }) => problems.length === 0).length
const isGreen = mismatches.length === 0 && caught === guards.length
write(`\n${caught} of ${guards.length} guards caught, in ${Math.round((performance.now() - started) / 1000)} s`)
if (isGreen && process.argv.includes("--write")) {
  writeFileSync(DOCUMENT, withTable(readFileSync(DOCUMENT, "utf8"), makeTable(bugClasses, guards)))
  write(`${DOCUMENT} has the table`)
}
write(JSON.stringify({ classes: bugClasses.length, guards: guards.length, caught }))
if (!isGreen) process.exitCode = 1
