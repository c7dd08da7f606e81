/**
 * What the tables say, as lines of text, and a C program that prints the same lines from the C headers. If every line
 * is equal, every size, alignment, offset and constant is.
 */
import { constants, structures } from "./structures.ts"

interface Member {
  readonly structure: string
  readonly path: string
  readonly offset: number
  readonly size: number
}

const members: ReadonlyArray<Member> = structures.flatMap((layout) =>
  Object.entries(layout.fields).flatMap(([name, field]) => {
    const place = { structure: layout.cName, path: field.cName, offset: layout.offsets[name]!, size: field.size }
    const alternatives = Object.entries(field.alternatives ?? {}).map(([cName, alternative]) => ({
      ...place,
      path: `${field.cName}.${cName}`,
      size: alternative.size
    }))
    return [place, ...alternatives]
  })
)

/** The lines that the tables of src/domain/abi give. */
export const report = [
  ...structures.map((layout) => `${layout.cName} size ${layout.size} align ${layout.align}`),
  ...members.map((member) => `${member.structure}.${member.path} offset ${member.offset} size ${member.size}`),
  ...constants.map(([cName, value]) => `${cName} = ${value}`),
  ""
].join("\n")

// A flexible array member has no sizeof; its table says 0.
const sizeOf = (member: Member): string =>
  member.size === 0 ? "(size_t)0" : `sizeof(((struct ${member.structure} *)0)->${member.path})`

/** A C program whose output is `report` exactly when the tables agree with the headers. */
export const program = [
  "#include <stddef.h>",
  "#include <stdio.h>",
  "#include <sys/ioctl.h>",
  "#include <linux/acrn.h>",
  "#include \"acrn_drv_layout.h\"",
  "",
  "int main(void) {",
  ...structures.map(({ cName }) =>
    `  printf("${cName} size %zu align %zu\\n", sizeof(struct ${cName}), _Alignof(struct ${cName}));`
  ),
  ...members.map((member) =>
    `  printf("${member.structure}.${member.path} offset %zu size %zu\\n", ` +
    `offsetof(struct ${member.structure}, ${member.path}), ${sizeOf(member)});`
  ),
  ...constants.map(([cName]) => `  printf("${cName} = %lu\\n", (unsigned long)${cName});`),
  "  return 0;",
  "}",
  ""
].join("\n")
