/**
 * What `import "upcall"` costs a program that starts: the published form is built aside, and a fresh process imports
 * its `index.js`. The peer imports just those modules of Effect that Upcall imports.
 */
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { mkdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { type Figure, type Measurement, median, type Skipped } from "./harness.ts"

const root = join(import.meta.dirname, "..")
const folder = join(root, ".cache/bench")
const PROCESSES = 15

const build = (): string | undefined => {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }))
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
  const compiler = join(root, "node_modules/typescript/bin/tsc")
  const { status, stdout } = spawnSync(
    process.execPath,
    [compiler, "-p", join(root, "tsconfig.build.json"), "--outDir", join(folder, "dist")],
    { encoding: "utf8" }
  )
  return status === 0 ? undefined : `it does not build: ${stdout.slice(0, 300)}`
}

/** The modules of Effect that the files reachable from `index.js` import. */
const effectModules = (entry: string): ReadonlyArray<string> => {
  const found = new Set<string>()
  const seen = new Set<string>()
  const visit = (file: string) => {
    if (seen.has(file)) return
    seen.add(file)
    for (const [, specifier] of readFileSync(file, "utf8").matchAll(/(?:from|import) "([^"]+)"/g)) {
      if (specifier!.startsWith(".")) visit(join(file, "..", specifier!))
      else if (specifier!.startsWith("effect/")) found.add(specifier!)
    }
  }
  visit(entry)
  return [...found].toSorted()
}

const TIMER = `const began = performance.now()
await import(process.argv[1])
process.stdout.write(String(performance.now() - began))`

const millisToImport = (file: string): number => {
  const { stderr, stdout } = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", TIMER, pathToFileURL(file).href],
    { encoding: "utf8" }
  )
  if (stdout === "") throw new Error(stderr)
  return Number(stdout)
}

const run = (): Measurement | Skipped => {
  const problem = build()
  if (problem !== undefined) return { skipped: problem }
  const index = join(folder, "dist/index.js")
  const modules = effectModules(index)
  const effectOnly = join(folder, "effect-only.js")
  writeFileSync(effectOnly, modules.map((module) => `import "${module}"\n`).join(""))
  if (readdirSync(join(folder, "dist")).length === 0) return { skipped: "the build is empty" }

  const ours: Array<number> = []
  const theirs: Array<number> = []
  // The first of each only fills the caches of the file system.
  for (let i = 0; i <= PROCESSES; i++) {
    ours.push(millisToImport(index))
    theirs.push(millisToImport(effectOnly))
  }
  const [value, peer] = [ours.slice(1), theirs.slice(1)] as const
  return {
    value: median(value),
    peer: { name: `the ${modules.length} modules of effect that it imports`, value: median(peer) },
    best: { value: Math.min(...value), peer: Math.min(...peer) },
    samples: value
  }
}

export const figure: Figure = {
  metric: "import.ms",
  unit: "ms",
  aim: { of: "value", atMost: 60 },
  run: () => Promise.resolve(run())
}
