/** The two barrels name every public module, each by its own name. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const source = join(import.meta.dirname, "../../src")

const publicModules = (...folders: ReadonlyArray<string>): Array<string> =>
  folders.flatMap((folder) =>
    readdirSync(join(source, folder)).filter((file) => /^[A-Z].*\.ts$/.test(file)).map((file) => join(folder, file))
  ).toSorted()

const exported = (barrel: string): ReadonlyMap<string, string> =>
  new Map(
    Array.from(
      readFileSync(join(source, barrel), "utf8").matchAll(/^export \* as (\w+) from "\.\/(.*)"$/gm),
      ([, name = "", path = ""]) => [path, name]
    )
  )

describe("the barrels", () => {
  it("upcall names every module of domain, services and layers but those that need Node.js", () => {
    const index = exported("index.ts")
    const modules = publicModules("domain", "services", "layers", "layers/devices", "layers/images")
      .filter((path) => path !== "layers/Acrn.ts" && path !== "layers/Kvm.ts")
    assert.deepStrictEqual([...index.keys()].toSorted(), modules)
    for (const [path, name] of index) assert.isTrue(path.endsWith(`/${name}.ts`), `${path} is exported as ${name}`)
  })

  it("upcall/testing names every module of testing but the one that imports vitest", () => {
    const index = exported("testing/index.ts")
    assert.deepStrictEqual(
      [...index.keys()].toSorted(),
      publicModules("testing").map((path) => path.slice(8)).filter((file) => file !== "Laws.ts")
    )
    for (const [path, name] of index) assert.strictEqual(path, `${name}.ts`)
  })
})
