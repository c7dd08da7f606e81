/**
 * The table of bug classes and their guards in docs/protocol.md.
 */
import type { BugClass } from "../../test/regressions/classes.ts"
import type { Guard } from "./markers.ts"

const BEGIN = "<!-- guards: begin -->"
const END = "<!-- guards: end -->"

const place = ({ file, symbol }: Guard): string => `\`${file.slice("src/".length)}:${symbol}\``

const rowOf = (guards: ReadonlyArray<Guard>) => ({ id, instead, source, test, title }: BugClass): Array<string> => [
  `${title}. ${source}`,
  `${instead[0]!.toUpperCase()}${instead.slice(1)}`,
  [...new Set(guards.filter(({ classes }) => classes.includes(id)).map(place))].join(", "),
  `\`${test}\``
]

const HEAD = ["bug and source", "what Upcall does", "guards, in `src`", "test, in `test/regressions`"]

/** The table, each column as wide as its widest cell. */
export const makeTable = (classes: ReadonlyArray<BugClass>, guards: ReadonlyArray<Guard>): string => {
  const rows = [HEAD, ...classes.map(rowOf(guards))]
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (cells: ReadonlyArray<string>) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`
  const [head, ...body] = rows.map(line)
  return [head, line(widths.map((width) => "-".repeat(width))), ...body].join("\n")
}

const split = (document: string): readonly [before: string, table: string, after: string] => {
  const begin = document.indexOf(BEGIN)
  const end = document.indexOf(END)
  if (begin < 0 || end < begin) throw new Error(`the document has no section between ${BEGIN} and ${END}`)
  const from = begin + BEGIN.length
  return [document.slice(0, from), document.slice(from, end).trim(), document.slice(end)]
}

/** The table that a document has. */
export const tableIn = (document: string): string => split(document)[1]

/** The document with another table. */
export const withTable = (document: string, table: string): string => {
  const [before, , after] = split(document)
  return `${before}\n\n${table}\n\n${after}`
}
