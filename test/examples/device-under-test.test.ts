/**
 * The example's README is true: its excerpts are in the sources, its failure is what comes out, its fix mends the device.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const example = join(root, "examples/device-under-test")
const readme = readFileSync(join(example, "README.md"), "utf8")

/** Lines without their indentation, which an excerpt does not share with its source. */
const unindented = (text: string): string => text.split("\n").map((line) => line.trim()).join("\n").trim()

const blocks = (language: string): ReadonlyArray<string> =>
  Array.from(readme.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, "g")), ([, block = ""]) => block)

/** The README's fix: each line to go, and the one that comes in its place. */
const fixes = Array.from(
  blocks("diff")[0]!.matchAll(/^-(.*)\n\+(.*)$/gm),
  ([, from = "", to = ""]) => [from, to] as const
)

/** A copy of the example, beside what it finds of the repository. */
const copyInto = (folder: string): string => {
  const copy = join(folder, "examples/device-under-test")
  mkdirSync(join(folder, "examples"), { recursive: true })
  cpSync(example, copy, { recursive: true })
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }))
  for (const name of ["src", "node_modules"]) symlinkSync(join(root, name), join(folder, name))
  return copy
}

/** What `npx vitest run` prints there. */
const runIn = (folder: string, environment: Record<string, string> = {}): Promise<string> =>
  new Promise((resolve) => {
    // A vitest in a vitest must not take itself for a worker of the other.
    const outer = Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST"))
    execFile(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), "run"], {
      cwd: folder,
      encoding: "utf8",
      env: { ...Object.fromEntries(outer), NO_COLOR: "1", ...environment }
    }, (_, stdout, stderr) => resolve(unindented(stdout + stderr)))
  })

// Three runs of vitest.
const TIMEOUT_MS = 300_000

describe("examples/device-under-test", () => {
  it("shows excerpts that are in its sources", () => {
    const sources = ["Timer.ts", "TimerModel.ts", "Timer.test.ts"]
      .map((name) => unindented(readFileSync(join(example, name), "utf8")))
    for (const block of blocks("ts")) {
      assert.isTrue(sources.some((source) => source.includes(unindented(block))), block)
    }
  })

  it("finds the mistake, makes it small, and is content with the fix", async () => {
    const [failure, success] = blocks("text").map(unindented)
    const folder = mkdtempSync(join(tmpdir(), "upcall-example-"))
    try {
      const broken = await runIn(copyInto(join(folder, "broken")))
      assert.include(broken, failure!)
      assert.include(broken, "Tests  1 failed | 3 passed (4)")
      assert.isAtMost(failure!.match(/^\d+\. /gm)!.length, 4)

      const mended = copyInto(join(folder, "mended"))
      let device = readFileSync(join(mended, "Timer.ts"), "utf8")
      for (const [from, to] of fixes) {
        assert.strictEqual(device.split(from.trim()).length, 2, `${from} is in the device, once`)
        device = device.replace(from.trim(), to.trim())
      }
      writeFileSync(join(mended, "Timer.ts"), device)
      const passed = await runIn(mended)
      assert.include(passed, success!)
      assert.include(readFileSync(join(mended, "Timer.test.ts"), "utf8"), "const CASES = 1000")

      const [, replay = ""] = /REPLAY='(.*)'/.exec(failure!) ?? []
      assert.include(await runIn(mended, { REPLAY: replay }), "PropertyPassed")
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, TIMEOUT_MS)
})
