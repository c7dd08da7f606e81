import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { program, report } from "./layoutReport.ts"

const here = import.meta.dirname
const expected = readFileSync(join(here, "layout.expected.txt"), "utf8")

/** The first C compiler that finds `<linux/acrn.h>`; the check needs both. */
const compiler = ["cc", "gcc", "clang"].find((name) =>
  spawnSync(name, ["-E", "-"], { input: "#include <linux/acrn.h>\n" }).status === 0
)

/** Compiles the generated program in a folder of its own and returns what it prints. */
const printedByC = (cc: string): string => {
  const folder = mkdtempSync(join(tmpdir(), "upcall-layout-"))
  try {
    const source = join(folder, "layout.c")
    const binary = join(folder, "layout")
    writeFileSync(source, program)
    execFileSync(cc, ["-std=gnu11", "-Wall", "-Werror", "-I", here, "-o", binary, source], { encoding: "utf8" })
    return execFileSync(binary, { encoding: "utf8" })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe("the tables against C", () => {
  it("the tables give the committed output of the C program", () => {
    assert.strictEqual(report, expected)
  })

  if (compiler === undefined) {
    it.skip("not compiled here (no C compiler that finds <linux/acrn.h>): only the committed output was compared")
  } else {
    it(`the C program, compiled here with ${compiler}, prints the committed output`, () => {
      assert.strictEqual(printedByC(compiler), expected)
    })
  }
})
