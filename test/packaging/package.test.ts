/**
 * The package as it is published: built and packed from a copy of the sources, unpacked where nothing but its declared
 * dependencies is beside it, and used by name.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

const root = join(import.meta.dirname, "../..")

// What a README would show: a guest of five bytes that exits with status 42.
const program = `import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { DebugExit, FlatBinary, Simulated, VirtualMachine } from "upcall"

const guest = Uint8Array.of(0xb0, 42, 0xe6, 0xf4, 0xf4) // mov al, 42; out 0xf4, al; hlt
const program = Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 1 << 16 })
  const debugExit = yield* vm.attach(DebugExit.make())
  yield* vm.load(yield* FlatBinary.plan({ bytes: guest, address: 0x1000, memoryBytes: vm.memoryBytes }))
  yield* vm.start
  return yield* debugExit.exit
})
const layer = Layer.provide(VirtualMachine.layer, Simulated.layer)
console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer))))
`

/** Builds and packs a copy, so that a build under way in the checkout is not in the way. */
const pack = (folder: string): string => {
  const copy = join(folder, "copy")
  mkdirSync(copy)
  for (const name of readdirSync(root)) {
    if (/^(src|package\.json|tsconfig.*\.json|[A-Z_]+(\.md)?)$/.test(name)) {
      cpSync(join(root, name), join(copy, name), { recursive: true })
    }
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
  const tsc = join(root, "node_modules/.bin/tsc")
  const built = spawnSync(tsc, ["-p", "tsconfig.build.json"], { cwd: copy, encoding: "utf8" })
  assert.strictEqual(built.status, 0, built.stdout)
  execFileSync("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], { cwd: copy, stdio: "ignore" })
  return join(folder, readdirSync(folder).find((name) => name.endsWith(".tgz"))!)
}

/** Unpacks the package, and puts links to what its manifest declares beside it. */
const install = (tarball: string, folder: string): void => {
  const installed = join(folder, "node_modules/upcall")
  mkdirSync(installed, { recursive: true })
  execFileSync("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"])
  const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
    readonly dependencies: Readonly<Record<string, string>>
    readonly peerDependencies: Readonly<Record<string, string>>
  }
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
    const link = join(folder, "node_modules", name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(root, "node_modules", name), link)
  }
}

describe("the packed package", () => {
  it("runs a guest of a program that knows it by name only", () => {
    const folder = mkdtempSync(join(tmpdir(), "upcall-package-"))
    try {
      const user = join(folder, "user")
      mkdirSync(user)
      install(pack(folder), user)
      writeFileSync(join(user, "package.json"), JSON.stringify({ type: "module", private: true }))
      writeFileSync(join(user, "program.ts"), program)
      const run = spawnSync(process.execPath, ["program.ts"], { cwd: user, encoding: "utf8" })
      assert.strictEqual(run.stdout, "42\n", run.stderr)

      const options = ["--module", "nodenext", "--target", "es2024", "--strict", "--skipLibCheck", "--noEmit"]
      const types = ["--types", "node", "--typeRoots", join(root, "node_modules/@types")]
      const tsc = join(root, "node_modules/.bin/tsc")
      const checked = spawnSync(tsc, [...options, ...types, "program.ts"], { cwd: user, encoding: "utf8" })
      assert.strictEqual(checked.status, 0, checked.stdout)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
