/**
 * What the tables say, as lines of text, and a C program that prints the same lines from the C headers. If every line
 * is equal, every size, alignment, offset and constant is.
 */
import { constants, structures } from "./exports.ts"

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

/** The lines that the tables of src/layers/kvm/abi give. */
export const report = [
  ...structures.map((layout) => `${layout.cName} size ${layout.size} align ${layout.align}`),
  ...members.map((member) => `${member.structure}.${member.path} offset ${member.offset} size ${member.size}`),
  ...constants.map(([expression, value]) => `${expression} = ${value}`),
  ""
].join("\n")

// A flexible array member has no sizeof; its table says 0.
const sizeOf = (member: Member): string =>
  member.size === 0 ? "(size_t)0" : `sizeof(((${typeOf(member.structure)} *)0)->${member.path})`

/** A C program whose output is `report` exactly when the tables agree with the headers. */
export const program = [
  "#include <stddef.h>",
  "#include <stdio.h>",
  "#include <sys/ioctl.h>",
  "#include <linux/kvm.h>",
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

/** Names of Linux 6.1 and x86-64: headers without them are of another machine, or older than the tables. */
export const probe = [
  "#include <linux/kvm.h>",
  "#if !defined(__x86_64__) || !defined(KVM_CAP_DIRTY_LOG_RING_ACQ_REL)",
  "#error not the headers that the tables are of",
  "#endif",
  ""
].join("\n")
