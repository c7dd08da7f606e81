// Run after a change of the lock file that was made against a registry mirror without the builds for every platform.
//
// npm writes no entry for an optional package that it could not look up, and `npm ci` then refuses the lock file on
// every machine ("Missing: ... from lock file"). Name, version and platform of such a package are known from the package
// that wants it, so the entry is added here; only its integrity is left out.
import { readFileSync, writeFileSync } from "node:fs"

const file = new URL("../package-lock.json", import.meta.url)
const lock = JSON.parse(readFileSync(file, "utf8"))
const folder = "node_modules/"
const cpus = ["arm64", "arm", "x64", "ia32", "loong64", "ppc64", "riscv64", "s390x"]
const systems = ["android", "darwin", "freebsd", "linux", "openharmony", "win32"]

const added = []
for (const [path, wanting] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(wanting.optionalDependencies ?? {})) {
    if (`${path}/${folder}${name}` in lock.packages || `${folder}${name}` in lock.packages) continue
    const os = systems.find((system) => name.includes(system))
    const cpu = cpus.find((candidate) => new RegExp(`[-/]${candidate}(-|$)`).test(name))
    if (os === undefined || cpu === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
      throw new Error(`${path} wants ${name}@${version}, and its platform cannot be told from its name: add it by hand`)
    }
    const libc = name.endsWith("-musl") ? ["musl"] : /-(gnu|glibc)$/.test(name) ? ["glibc"] : undefined
    lock.packages[`${folder}${name}`] = {
      version,
      cpu: [cpu],
      ...wanting.dev && { dev: true },
      ...libc && { libc },
      optional: true,
      os: [os]
    }
    added.push(`${name}@${version}`)
  }
}

lock.packages = Object.fromEntries(
  Object.entries(lock.packages).toSorted(([a], [b]) => a.localeCompare(b, "en"))
)
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
process.stdout.write(`${added.length} entries added\n${added.map((name) => `  ${name}\n`).join("")}`)
