/** The tables of docs/acrn.md, which tests compare with the data they are about. */
import { readFileSync } from "node:fs"

export const documentation: string = readFileSync(new URL("../../docs/acrn.md", import.meta.url), "utf8")

type Row = ReadonlyArray<string>

const cellsOf = (line: string): Row => line.split("|").slice(1, -1).map((cell) => cell.trim())

/** The rows of the first table under a heading, without its own heading. */
export const tableUnder = (heading: string): ReadonlyArray<Row> => {
  const lines = documentation.split("\n")
  const start = lines.findIndex((line) => line.startsWith("#") && line.replace(/^#+ /, "") === heading)
  const rows: Array<Row> = []
  for (const line of lines.slice(start + 1)) {
    if (line.startsWith("|")) rows.push(cellsOf(line))
    else if (rows.length > 0 || line.startsWith("#")) break
  }
  return rows.slice(2)
}
