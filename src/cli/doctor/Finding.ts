/**
 * What the facts of a machine mean, one by one, for people.
 */

/**
 * `limited`: VMs run without it, but not everything does. `unknown`: it could not be told.
 */
type Verdict = "ok" | "missing" | "limited" | "unknown"

export interface Finding {
  readonly check: string
  readonly verdict: Verdict
  readonly detail: string
  /** What to do about it. */
  readonly remedy?: string
}

const MARK: Readonly<Record<Verdict, string>> = {
  ok: "ok",
  missing: "MISSING",
  limited: "limited",
  unknown: "unknown"
}

/** The findings as text: a line each, and below it what to do. */
export const format = (findings: ReadonlyArray<Finding>): string =>
  findings.flatMap(({ check, detail, remedy, verdict }) => [
    `${check.padEnd(13)}${MARK[verdict].padEnd(9)}${detail}`,
    ...remedy === undefined ? [] : [`${" ".repeat(22)}-> ${remedy}`]
  ]).join("\n")
