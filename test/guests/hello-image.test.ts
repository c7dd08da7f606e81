import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const guests = join(import.meta.dirname, "../../guests")
const sources = readdirSync(guests, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".asm"))
const nasm = spawnSync("nasm", ["-v"]).status === 0

describe("guests", () => {
  it("there are sources to compare", () => {
    assert.include(sources, join("hello", "hello.asm"))
  })

  for (const source of sources) {
    const image = source.replace(/\.asm$/, ".bin")
    const reason = nasm ? "" : " (skipped: nasm is not installed, and it assembles the source)"

    it.skipIf(!nasm)(`${image} is what ${source} assembles to${reason}`, () => {
      const folder = mkdtempSync(join(tmpdir(), "upcall-guest-"))
      try {
        const built = join(folder, "image.bin")
        const run = spawnSync("nasm", ["-w+all", "-w+error", "-f", "bin", "-o", built, join(guests, source)], {
          encoding: "utf8"
        })
        assert.strictEqual(run.status, 0, run.stderr)
        assert.isTrue(
          readFileSync(built).equals(readFileSync(join(guests, image))),
          `${image} is not what its source assembles to: run npm run guests:build`
        )
      } finally {
        rmSync(folder, { recursive: true })
      }
    })
  }
})
