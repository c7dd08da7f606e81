/**
 * The examples in the documentation of `upcall/testing` run as they stand, print what they say, and type-check.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const source = join(root, "src/testing")

interface Example {
  readonly name: string
  readonly code: string
  readonly output: string
}

const examplesOf = (file: string): Array<Example> =>
  Array.from(
    readFileSync(join(source, file), "utf8").matchAll(/\*\*Example\*\* \((.*)\)\n \*\n \* ```ts\n([\s\S]*?) \* ```/g),
    ([, name = "", block = ""]) => {
      const lines = block.split("\n").map((line) => line.replace(/^ \* ?/, ""))
      const expected = lines.flatMap((line) => line.match(/^\s*\/\/ => (.*)$/)?.[1] ?? [])
      return {
        name: `${file}: ${name}`,
        // The sources in place of the published build, which is the same code.
        code: lines.join("\n").replace(/"upcall\/([^"]+)"/g, (_, path) => `"${root}/src/${path}.ts"`),
        output: expected.map((line) => `${line}\n`).join("")
      }
    }
  )

const examples = readdirSync(source).filter((file) => file.endsWith(".ts")).flatMap(examplesOf)

describe("examples", () => {
  it("there is one for each module", () => {
    const modules = readdirSync(source).filter((file) => /^[A-Z].*\.ts$/.test(file))
    assert.deepStrictEqual(
      modules.filter((file) => !examples.some((example) => example.name.startsWith(`${file}:`))),
      []
    )
  })

  it("run as they stand, and print what they say", () => {
    const folder = mkdtempSync(join(tmpdir(), "upcall-examples-"))
    try {
      symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
      writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }))
      for (const [index, example] of examples.entries()) {
        const file = join(folder, `example${index}.ts`)
        writeFileSync(file, example.code)
        const run = spawnSync(process.execPath, [file], { encoding: "utf8" })
        assert.strictEqual(run.stdout, example.output, `${example.name}\n${run.stderr}`)
      }
      writeFileSync(
        join(folder, "tsconfig.json"),
        JSON.stringify({
          extends: join(root, "tsconfig.base.json"),
          compilerOptions: {
            types: ["node"],
            typeRoots: [join(root, "node_modules/@types")],
            rewriteRelativeImportExtensions: false,
            allowImportingTsExtensions: true
          },
          include: ["*.ts"]
        })
      )
      const checked = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", folder], { encoding: "utf8" })
      assert.strictEqual(checked.status, 0, checked.stdout)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
