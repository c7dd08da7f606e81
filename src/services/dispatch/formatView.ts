/**
 * A page of requests as text for people.
 */
import * as IoRange from "../../domain/IoRange.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import type { PageView, SlotView } from "../IoRequestBuffer.ts"
import type { OwnedRange } from "./PageUse.ts"

type Row = ReadonlyArray<string>

/** Columns two spaces apart, filled up on their right, with no spaces at line ends. */
const columns = (rows: ReadonlyArray<Row>): Array<string> => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd())
}

const slotRow = (slot: SlotView): Row => [
  String(slot.vcpu),
  typeof slot.state === "string" ? slot.state : `code ${slot.state.unknown}`,
  slot.owner,
  String(slot.epoch),
  slot.ageMs === undefined ? "-" : `${Number(slot.ageMs.toPrecision(6))} ms`,
  slot.client ?? "-",
  slot.request === undefined ? slot.problem ?? "-" : IoRequest.format(slot.request)
]

const owned = ({ client, range }: OwnedRange): string => `${IoRange.format(range)} of ${client}`

const section = (title: string, lines: ReadonlyArray<string>): Array<string> =>
  lines.length === 0 ? [] : ["", title, ...lines.map((line) => `  ${line}`)]

export const formatView = (view: PageView): string =>
  [
    ...columns([["vCPU", "state", "owner", "epoch", "age", "client", "request"], ...view.slots.map(slotRow)]),
    ...section("ranges", view.ranges.map(owned)),
    ...section(
      "near misses",
      view.nearMisses.map(({ nearest, request }) =>
        `${IoRequest.format(request)}; nearest: ${nearest.length === 0 ? "none" : nearest.map(owned).join(", ")}`
      )
    )
  ].join("\n")
