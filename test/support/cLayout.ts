/**
 * What tables of ABI structures say, as lines of text, and a C program that prints the same lines from the C headers. If
 * every line is equal, every size, alignment, offset and constant is.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Struct } from "../../src/domain/abi/Layout.ts"

interface Tables {
  readonly structures: ReadonlyArray<Struct>
  /** Expressions of C and their values. */
  readonly constants: Iterable<readonly [expression: string, value: number | bigint]>
  /** What the program includes, with its brackets or quotes. */
  readonly headers: ReadonlyArray<string>
}

interface CLayout {
  /** The lines that the tables give. */
  readonly report: string
  /** A C program whose output is `report` exactly when the tables agree with the headers. */
  readonly program: string
}

/** A structure's type in C; one without a tag, as `kvm_run.io`, is named by the member that has it. */
const typeOf = (cName: string): string => {
  const [owner, ...path] = cName.split(".")
  return path.length === 0 ? `struct ${owner}` : `__typeof__(((struct ${owner} *)0)->${path.join(".")})`
}

interface Member {
  readonly structure: string
  readonly path: string
  readonly offset: number
  readonly size: number
}

const membersOf = (layout: Tables["structures"][number]): ReadonlyArray<Member> =>
  Object.entries(layout.fields).flatMap(([name, field]) => {
    const place = { structure: layout.cName, path: field.cName, offset: layout.offsets[name]!, size: field.size }
    const alternatives = Object.entries(field.alternatives ?? {}).map(([cName, alternative]) => ({
      ...place,
      path: `${field.cName}.${cName}`,
      size: alternative.size
    }))
    return [place, ...alternatives]
  })

// A flexible array member has no sizeof; its table says 0.
const sizeOf = (member: Member): string =>
  member.size === 0 ? "(size_t)0" : `sizeof(((${typeOf(member.structure)} *)0)->${member.path})`

const cLayout = ({ headers, structures, ...tables }: Tables): CLayout => {
  const constants = [...tables.constants]
  const members = structures.flatMap(membersOf)
  return {
    report: [
      ...structures.map((layout) => `${layout.cName} size ${layout.size} align ${layout.align}`),
      ...members.map((member) => `${member.structure}.${member.path} offset ${member.offset} size ${member.size}`),
      ...constants.map(([expression, value]) => `${expression} = ${value}`),
      ""
    ].join("\n"),
    program: [
      "#include <stddef.h>",
      "#include <stdio.h>",
      "#include <sys/ioctl.h>",
      ...headers.map((header) => `#include ${header}`),
      "",
      "int main(void) {",
      ...structures.map(({ cName }) =>
        `  printf("${cName} size %zu align %zu\\n", sizeof(${typeOf(cName)}), _Alignof(${typeOf(cName)}));`
      ),
      ...members.map((member) =>
        `  printf("${member.structure}.${member.path} offset %zu size %zu\\n", ` +
        `offsetof(${typeOf(member.structure)}, ${member.path}), ${sizeOf(member)});`
      ),
      ...constants.map(([expression]) => `  printf("${expression} = %llu\\n", (unsigned long long)(${expression}));`),
      "  return 0;",
      "}",
      ""
    ].join("\n")
  }
}

interface Checked extends Tables {
  /** Where the committed output is, `layout.expected.txt`, and headers of our own. */
  readonly folder: string
  /** A program that only the right headers let compile. */
  readonly probe: string
  /** What is missing where no compiler takes the probe. */
  readonly missing: string
}

/** Compiles a program in a folder of its own and returns what it prints. */
const printedBy = (compiler: string, program: string, include: string): string => {
  const folder = mkdtempSync(join(tmpdir(), "upcall-layout-"))
  try {
    const source = join(folder, "layout.c")
    const binary = join(folder, "layout")
    writeFileSync(source, program)
    execFileSync(compiler, ["-std=gnu11", "-Wall", "-Werror", "-I", include, "-o", binary, source], {
      encoding: "utf8"
    })
    return execFileSync(binary, { encoding: "utf8" })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Tests that tables agree with the committed output of the C program, and that with the headers of this machine. */
export const describeAgainstC = (name: string, { folder, missing, probe, ...tables }: Checked): void => {
  const { program, report } = cLayout(tables)
  const expected = readFileSync(join(folder, "layout.expected.txt"), "utf8")
  const compiler = ["cc", "gcc", "clang"].find((candidate) =>
    spawnSync(candidate, ["-fsyntax-only", "-x", "c", "-"], { input: probe }).status === 0
  )
  describe(name, () => {
    it("the tables give the committed output of the C program", () => {
      assert.strictEqual(report, expected)
    })

    if (compiler === undefined) {
      it.skip(`not compiled here (no C compiler ${missing}): only the committed output was compared`)
    } else {
      it(`the C program, compiled here with ${compiler}, prints the committed output`, () => {
        assert.strictEqual(printedBy(compiler, program, folder), expected)
      })
    }
  })
}
