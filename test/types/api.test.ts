/**
 * Compiles api.ts without its `@ts-expect-error` lines: every line that was below one has the error which the comment
 * names, and no other line has any. (`@ts-expect-error` alone is content with any error, a misspelt import too.)
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join, relative } from "node:path"

const ROOT = join(import.meta.dirname, "../..")
const TSC = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc")
const EXPECTED = /^\s*\/\/ @ts-expect-error '([^']+)': (.+)$/
const ERROR = /^\S*api\.ts\((\d+),\d+\): error/

const lines = readFileSync(join(import.meta.dirname, "api.ts"), "utf8").split("\n")
const cases = lines.flatMap((line, i) => {
  const found = EXPECTED.exec(line)
  // The compiler counts lines from 1, and the error is on the next one.
  return found === null ? [] : [{ line: i + 2, names: found[1]!, title: found[2]! }]
})

/** The errors of a program, with all that belongs to each, by line. */
const compile = (program: string): Map<number, string> => {
  const cache = join(ROOT, ".cache")
  mkdirSync(cache, { recursive: true })
  // Inside the project, where the packages are found.
  const folder = mkdtempSync(join(cache, "types-"))
  try {
    writeFileSync(join(folder, "api.ts"), program.replaceAll("\"../../src/", `"${relative(folder, ROOT)}/src/`))
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({ extends: join(ROOT, "tsconfig.json"), include: ["api.ts"] })
    )
    const { stdout } = spawnSync(process.execPath, [TSC, "-p", folder, "--pretty", "false"], { encoding: "utf8" })
    const errors = new Map<number, string>()
    let at = 0
    for (const line of stdout.split("\n")) {
      const found = ERROR.exec(line)
      if (found !== null) at = Number(found[1])
      if (line !== "") errors.set(at, `${errors.get(at) ?? ""}${line}\n`)
    }
    return errors
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe("what must not compile", () => {
  let errors: ReadonlyMap<number, string> = new Map()
  beforeAll(() => {
    errors = compile(lines.map((line) => EXPECTED.test(line) ? "//" : line).join("\n"))
  })

  for (const { line, names, title } of cases) {
    it(title, () => {
      const error = errors.get(line)
      assert.isDefined(error, `api.ts:${line} compiles`)
      assert.include(error, `'${names}`, `api.ts:${line} is refused for another reason`)
    })
  }

  it("everything else does", () => {
    const expected = new Set(cases.map(({ line }) => line))
    assert.deepStrictEqual([...errors].filter(([line]) => !expected.has(line)), [])
    const directives = lines.filter((line) => line.trimStart().startsWith("// @ts-expect-error"))
    assert.strictEqual(directives.length, cases.length, "each names the error it expects")
  })
})
