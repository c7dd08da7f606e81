/** Real images, made by the system's assembler and linker from the sources in fixtures/. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const FIXTURES = join(import.meta.dirname, "fixtures")

const isMissing = ["as", "ld", "readelf"].some((tool) => spawnSync(tool, ["--version"]).status !== 0) ||
  !spawnSync("ld", ["-V"], { encoding: "utf8" }).stdout.includes("elf_i386")

/** For the names of tests, so that a report says why. */
export const skipped = isMissing
  ? " (skipped: as, ld and readelf for x86, which make the images, are not installed)"
  : ""

/** Runs tools in a folder of their own. Each is a command line whose parts have no spaces. */
const inFolder = <A>(commands: ReadonlyArray<string>, use: (folder: string) => A): A => {
  const folder = mkdtempSync(join(tmpdir(), "upcall-images-"))
  try {
    for (const command of commands) {
      const [tool = "", ...args] = command.split(" ")
      const run = spawnSync(tool, args, { cwd: folder, encoding: "utf8" })
      if (run.status !== 0) throw new Error(`${command}: ${run.stderr}`)
    }
    return use(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const assemble = (source: string, bits: 32 | 64) => `as --${bits} -o object.o ${join(FIXTURES, source)}`

/** The fixture as an object file, not linked. */
export const assembled = (source: string, bits: 32 | 64): Uint8Array =>
  inFolder([assemble(source, bits)], (folder) => readFileSync(join(folder, "object.o")))

/** The fixture as an executable whose code is at 1 MiB. `options` are the linker's. */
export const linked = (source: string, bits: 32 | 64, options = "-Ttext=0x100000"): Uint8Array =>
  inFolder([
    assemble(source, bits),
    `ld -m ${bits === 64 ? "elf_x86_64" : "elf_i386"} -e start --no-warn-rwx-segments ${options} -o linked object.o`
  ], (folder) => readFileSync(join(folder, "linked")))

const isQemuMissing = spawnSync("qemu-system-i386", ["--version"]).status !== 0

/** As `skipped`, for what is compared with another loader. */
export const skippedWithoutQemu = skipped !== ""
  ? skipped
  : isQemuMissing
  ? " (skipped: qemu-system-i386, whose loader is compared, is not installed)"
  : ""

/**
 * What a fixture, linked as a Multiboot kernel, prints when QEMU loads it. The modules are files with this content. QEMU
 * puts a file's path in front of each text that it gives, which is left out here.
 */
export const underQemu = (
  source: string,
  append: string,
  modules: ReadonlyArray<{ readonly name: string; readonly text: string; readonly bytes: Uint8Array }>
): string =>
  inFolder([
    assemble(source, 32),
    "ld -m elf_i386 -e start --no-warn-rwx-segments -Ttext=0x100000 -o linked object.o"
  ], (folder) => {
    for (const { bytes, name } of modules) writeFileSync(join(folder, name), bytes)
    const run = spawnSync("qemu-system-i386", [
      ..."-accel tcg -m 32M -display none -serial stdio -monitor none -no-reboot".split(" "),
      ..."-device isa-debug-exit,iobase=0xf4 -kernel linked".split(" "),
      "-append",
      append,
      "-initrd",
      modules.map(({ name, text }) => `${name} ${text}`).join(",")
    ], { cwd: folder, encoding: "latin1", input: "", timeout: 30_000 })
    return run.stdout
  })

/** A PT_LOAD header as readelf shows it. */
interface LoadHeader {
  readonly offset: number
  readonly address: number
  readonly fileBytes: number
  readonly memoryBytes: number
}

/** What readelf says of the fixture linked the same way. */
export const loadHeaders = (source: string, bits: 32 | 64): ReadonlyArray<LoadHeader> =>
  inFolder([
    assemble(source, bits),
    `ld -m ${
      bits === 64 ? "elf_x86_64" : "elf_i386"
    } -e start --no-warn-rwx-segments -Ttext=0x100000 -o linked object.o`
  ], (folder) => {
    const { stdout } = spawnSync("readelf", ["-lW", "linked"], { cwd: folder, encoding: "utf8" })
    return Array.from(
      stdout.matchAll(/^ +LOAD +(0x\w+) +0x\w+ +(0x\w+) +(0x\w+) +(0x\w+)/gm),
      (match) => {
        const [offset, address, fileBytes, memoryBytes] = match.slice(1).map(Number) as [number, number, number, number]
        return { offset, address, fileBytes, memoryBytes }
      }
    ).filter((load) => load.memoryBytes > 0)
  })
