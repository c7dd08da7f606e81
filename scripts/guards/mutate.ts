/**
 * Takes each guard out in turn, with Stryker, and tells which tests noticed.
 */
import { Stryker } from "@stryker-mutator/core"
import { fileURLToPath } from "node:url"
import type { Guard } from "./markers.ts"
import { roleOf } from "./removal.ts"
import type { GuardOptions } from "./runner.ts"

export interface Removal {
  readonly guard: Guard
  readonly role: "Whole" | "Part"
  /** The condition, or the part of it, that was replaced. */
  readonly line: number
  readonly column: number
  /** `Killed`, `Survived`, `NoCoverage`, `Timeout`, ... */
  readonly status: string
  /** Tests that failed without it, as `file#name`. */
  readonly killedBy: ReadonlyArray<string>
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url))

// What takes a guard out is one of two mutators; the others are work for nothing.
const OTHER_MUTATORS = [
  "ArithmeticOperator",
  "ArrayDeclaration",
  "ArrowFunction",
  "AssignmentOperator",
  "BooleanLiteral",
  "CallExpression",
  "EqualityOperator",
  "LogicalOperator",
  "MethodExpression",
  "ObjectLiteral",
  "OptionalChaining",
  "Regex",
  "StringLiteral",
  "UnaryOperator",
  "UpdateOperator"
]

const optionsFor = (guards: GuardOptions["guards"]) => ({
  mutate: guards.map(({ end, file, start }) => `${file}:${start.line}:${start.column}-${end.line}:${end.column}`),
  mutator: { excludedMutations: OTHER_MUTATORS },
  testRunner: "guards",
  plugins: [fileURLToPath(new URL("runner.ts", import.meta.url))],
  vitest: { configFile: "scripts/guards/vitest.config.ts", related: false },
  guardOptions: { root: ROOT, guards },
  coverageAnalysis: "perTest" as const,
  // All tests that notice are wanted, not the first one.
  disableBail: true,
  concurrency: 2,
  timeoutMS: 20_000,
  // Stryker rewrites the compiler's settings in its copy, by an API that TypeScript 7 has not.
  tsconfigFile: "none.json",
  ignorePatterns: ["/*", "!/src", "!/test", "!/scripts", "!/package.json"],
  tempDirName: ".cache/guards",
  cleanTempDir: "always" as const,
  reporters: [],
  checkers: [],
  logLevel: "error" as const,
  fileLogLevel: "off" as const
})

export const takeGuardsOut = async (guards: GuardOptions["guards"]): Promise<Array<Removal>> => {
  const results = await new Stryker(optionsFor(guards) as never).runMutationTest()
  return results.flatMap(({ fileName, killedBy = [], location, mutatorName, replacement, status }) => {
    const mutation = {
      file: fileName.slice(ROOT.length).replaceAll("\\", "/"),
      // Columns count from 1 here.
      start: { line: location.start.line, column: location.start.column - 1 },
      end: { line: location.end.line, column: location.end.column - 1 },
      mutator: mutatorName,
      replacement
    }
    return guards.flatMap((guard): Array<Removal> => {
      const role = roleOf(guard, mutation)
      return role === undefined ? [] : [{ guard, role, ...mutation.start, status, killedBy }]
    })
  })
}
