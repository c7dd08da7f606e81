/**
 * Plain-text tables.
 */

/** A column: its title, and on which side its cells are filled up. */
export interface Column {
  readonly title: string
  readonly align: "left" | "right"
}

/** Columns two spaces apart, a rule under the titles, no spaces at line ends. Every row has a cell for each column. */
export const format = (columns: ReadonlyArray<Column>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...rows.map((row) => (row[index] ?? "").length))
  )
  const line = (cells: ReadonlyArray<string>): string =>
    columns.map(({ align }, index) => {
      const cell = cells[index] ?? ""
      return align === "left" ? cell.padEnd(widths[index]!) : cell.padStart(widths[index]!)
    }).join("  ").trimEnd()
  return [
    line(columns.map(({ title }) => title)),
    widths.map((width) => "-".repeat(width)).join("  "),
    ...rows.map(line)
  ].join("\n")
}
