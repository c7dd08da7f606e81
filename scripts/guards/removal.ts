/**
 * Which of the mutants that Stryker makes inside a guard take it out, wholly or a part of its condition.
 */
import type { Guard, Position } from "./markers.ts"

export interface Mutation {
  readonly file: string
  readonly start: Position
  readonly end: Position
  readonly mutator: string
  readonly replacement: string
}

const isBefore = (a: Position, b: Position): boolean => a.line < b.line || (a.line === b.line && a.column <= b.column)
const isSame = (a: Position, b: Position): boolean => a.line === b.line && a.column === b.column

export const isInside = (guard: Guard, mutation: Mutation): boolean =>
  mutation.file === guard.file && isBefore(guard.start, mutation.start) && isBefore(mutation.end, guard.end)

const MUTATOR: Readonly<Record<Guard["replacement"], string>> = {
  "false": "ConditionalExpression",
  "true": "ConditionalExpression",
  "{}": "BlockStatement"
}

/** `Whole` takes the guard out, `Part` one side of its condition; anything else is not about taking it out. */
export const roleOf = (guard: Guard, mutation: Mutation): "Whole" | "Part" | undefined => {
  const { replacement } = guard
  if (mutation.mutator !== MUTATOR[replacement] || mutation.replacement !== replacement) return undefined
  if (!isInside(guard, mutation)) return undefined
  if (isSame(guard.start, mutation.start) && isSame(guard.end, mutation.end)) return "Whole"
  return replacement === "{}" ? undefined : "Part"
}
