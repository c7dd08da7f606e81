// Installs the packed package beside its declared dependencies only, and then, from outside:
// imports every public module, compiles a program that uses the types of every public module,
// and makes sure that no private module can be reached. Wants `npm run build` first.
//
// attw and publint do not look behind the `*` of an exports pattern: this does.
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

/** The folders whose modules are public. Anything deeper is the private part of one of them. */
const publicFolders = new Set([
  "domain",
  "domain/abi",
  "services",
  "layers",
  "layers/devices",
  "layers/images",
  "testing"
])
const barrels = { "index.js": manifest.name, "testing/index.js": `${manifest.name}/testing` }

const problems = []
const work = mkdtempSync(join(tmpdir(), "upcall-exports-"))
try {
  const packed = JSON.parse(
    execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", work], {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"]
    })
  )
  // npm 12 answers with an object by package name, npm 11 and older with an array.
  const [{ filename, files }] = Object.values(packed)
  const installed = join(work, "node_modules", manifest.name)
  mkdirSync(installed, { recursive: true })
  execFileSync("tar", ["-xzf", join(work, filename), "-C", installed, "--strip-components=1"])
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
    const link = join(work, "node_modules", name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(root, "node_modules", name), link)
  }

  for (const name of ["LICENSE", "README.md", "THIRD_PARTY_NOTICES.md"]) {
    if (!files.some((file) => file.path === name)) problems.push(`the package has no ${name}`)
  }
  for (const target of Object.values(manifest.bin)) {
    const bin = join(installed, target)
    try {
      if (!readFileSync(bin, "utf8").startsWith("#!/usr/bin/env node\n")) {
        problems.push(`${target} does not start with #!/usr/bin/env node`)
      }
    } catch {
      problems.push(`the package has no ${target}, which "bin" names`)
    }
  }

  const modules = readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".js"))
    .toSorted()
  const open = []
  const closed = []
  for (const path of modules) {
    const specifier = barrels[path] ?? `${manifest.name}/${path.replace(/\.js$/, "")}`
    const isPublic = path in barrels || publicFolders.has(dirname(path)) && /^[A-Z]/.test(path.split("/").at(-1))
    ;(isPublic ? open : closed).push(specifier)
  }
  if (open.length === 0) problems.push("dist holds no public module: run `npm run build` first")

  // In the installed package's place, so that resolution is a consumer's.
  writeFileSync(
    join(work, "import.mjs"),
    `const { open, closed } = ${JSON.stringify({ open, closed })}
const problems = []
for (const specifier of open) {
  try {
    await import(specifier)
  } catch (error) {
    problems.push(\`\${specifier} is public and does not import: \${error.message.split("\\n")[0]}\`)
  }
}
for (const specifier of closed) {
  try {
    import.meta.resolve(specifier)
    problems.push(\`\${specifier} is private and can be imported: add its folder to "exports" with null\`)
  } catch (error) {
    if (error.code !== "ERR_PACKAGE_PATH_NOT_EXPORTED") problems.push(\`\${specifier}: \${error.message}\`)
  }
}
process.stdout.write(JSON.stringify(problems))
process.exit(0)
`
  )
  problems.push(...JSON.parse(execFileSync(process.execPath, [join(work, "import.mjs")], { encoding: "utf8" })))

  writeFileSync(join(work, "package.json"), JSON.stringify({ type: "module", private: true }))
  writeFileSync(
    join(work, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        module: "NodeNext",
        target: "ES2024",
        // With DOM and without skipLibCheck the declarations themselves are checked, ours and Effect's.
        lib: ["ES2024", "ESNext.Disposable", "ESNext.Iterator", "DOM", "DOM.Iterable", "DOM.AsyncIterable"],
        types: [],
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        noEmit: true
      },
      files: ["types.ts"]
    })
  )
  writeFileSync(join(work, "types.ts"), open.map((name, i) => `export * as m${i} from "${name}"\n`).join(""))
  try {
    execFileSync(join(root, "node_modules", ".bin", "tsc"), ["-p", work], { encoding: "utf8", stdio: "pipe" })
  } catch (error) {
    problems.push(`the types do not compile in a consumer's program:\n${error.stdout}`)
  }

  if (problems.length === 0) {
    process.stdout.write(
      `${open.length} public modules import and type-check, ${closed.length} private ones are closed\n`
    )
  }
} finally {
  rmSync(work, { recursive: true, force: true })
}

if (problems.length > 0) {
  process.stderr.write(`${problems.length} problems with the package's exports:\n- ${problems.join("\n- ")}\n`)
  process.exit(1)
}
