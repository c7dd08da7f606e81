import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { probe, program, report } from "./cReport.ts"

const expected = readFileSync(join(import.meta.dirname, "layout.expected.txt"), "utf8")

const compiler = ["cc", "gcc", "clang"].find((name) =>
  spawnSync(name, ["-fsyntax-only", "-x", "c", "-"], { input: probe }).status === 0
)

/** Compiles the generated program in a folder of its own and returns what it prints. */
const printedByC = (cc: string): string => {
  const folder = mkdtempSync(join(tmpdir(), "upcall-kvm-layout-"))
  try {
    const source = join(folder, "layout.c")
    const binary = join(folder, "layout")
    writeFileSync(source, program)
    execFileSync(cc, ["-std=gnu11", "-Wall", "-Werror", "-o", binary, source], { encoding: "utf8" })
    return execFileSync(binary, { encoding: "utf8" })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe("KVM's tables against C", () => {
  it("the tables give the committed output of the C program", () => {
    assert.strictEqual(report, expected)
  })

  if (compiler === undefined) {
    it.skip(
      "not compiled here (no C compiler for x86-64 that finds <linux/kvm.h> of Linux 6.1 or later): " +
        "only the committed output was compared"
    )
  } else {
    it(`the C program, compiled here with ${compiler}, prints the committed output`, () => {
      assert.strictEqual(printedByC(compiler), expected)
    })
  }
})
