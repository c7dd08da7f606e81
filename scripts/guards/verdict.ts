/**
 * What a run of removals says of each bug class: what it found wrong, if anything.
 */
import type { BugClass } from "../../test/regressions/classes.ts"
import type { Guard } from "./markers.ts"
import type { Removal } from "./mutate.ts"

export interface Verdict {
  readonly guard: Guard
  /** Tests, by name, that fail without the guard. */
  readonly caughtBy: ReadonlyArray<string>
  /** Sides of its condition that can go and no test of the class notices, as lines and columns. */
  readonly spareParts: ReadonlyArray<string>
  readonly problems: ReadonlyArray<string>
}

const nameOf = (testId: string): string => testId.slice(testId.indexOf("#") + 1)

const isOf = (bug: BugClass) => (testId: string) => testId.includes(bug.test)

export const judge = (
  guard: Guard,
  classes: ReadonlyArray<BugClass>,
  removals: ReadonlyArray<Removal>
): Verdict => {
  const own = removals.filter((removal) => removal.guard === guard)
  const whole = own.find(({ role }) => role === "Whole")
  const parts = own.filter(({ role, status }) => role === "Part" && status !== "Killed")
  const bugs = classes.filter(({ id }) => guard.classes.includes(id))
  const problems = whole === undefined
    ? ["Stryker makes no mutant of it; it leaves what is inside a type assertion (`... as T`) alone"]
    : bugs.flatMap((bug) =>
      whole.killedBy.some(isOf(bug)) ? [] : [`taken out, ${bug.test} does not fail (${whole.status.toLowerCase()})`]
    )
  return {
    guard,
    caughtBy: (whole?.killedBy ?? []).map(nameOf),
    spareParts: parts.map(({ column, line }) => `${line}:${column + 1}`),
    problems
  }
}

/** What is wrong with the list of classes and the markers, whatever the tests do. */
export const findMismatches = (
  classes: ReadonlyArray<BugClass>,
  guards: ReadonlyArray<Guard>,
  testFiles: ReadonlyArray<string>
): Array<string> => {
  const ids = new Set(classes.map(({ id }) => id))
  const marked = new Set(guards.flatMap((guard) => guard.classes))
  const listed = new Set(classes.map(({ test }) => test))
  const existing = new Set(testFiles)
  return [
    ...guards.flatMap(({ classes: named, file, symbol }) =>
      named.filter((id) => !ids.has(id)).map((id) => `${file} ${symbol}: there is no bug class "${id}"`)
    ),
    ...classes.filter(({ id }) => !marked.has(id)).map(({ id }) => `${id}: no guard in src is marked with it`),
    ...classes.filter(({ id, test }) => !test.startsWith(id)).map(({ id, test }) =>
      `${id}: ${test} is not named after it`
    ),
    ...classes.filter(({ test }) => !existing.has(test)).map(({ id, test }) => `${id}: there is no ${test}`),
    ...testFiles.filter((file) => !listed.has(file)).map((file) => `${file} is of no bug class`)
  ]
}
