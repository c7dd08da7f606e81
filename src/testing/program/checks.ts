/** What makes a list of operations no program, beyond the range of one field, and how much a program takes. */
import type { GuestProgramErrorReason, Operation } from "../GuestProgram.ts"

/** Walks without recursion, since it stands before the limit on depth, and before anything was checked. */
export const isTooDeep = (operations: ReadonlyArray<unknown>, limit: number): boolean => {
  let level = operations
  for (let depth = 0; depth <= limit; depth++) {
    const bodies = level.flatMap((operation) => {
      const body = (operation as { readonly body?: unknown } | null | undefined)?.body
      return Array.isArray(body) ? [body as ReadonlyArray<unknown>] : []
    })
    if (bodies.length === 0) return false
    level = bodies.flat()
  }
  return true
}

export interface Size {
  readonly steps: number
  readonly resultBytes: number
}

export const sizeOf = (operations: ReadonlyArray<Operation>): Size => {
  let steps = 0
  let resultBytes = 0
  for (const operation of operations) {
    switch (operation._tag) {
      case "StringIn":
        steps += operation.count
        resultBytes += Math.ceil(operation.count * operation.size / 4) * 4
        break
      case "StringOut":
        steps += operation.bytes.length / operation.size
        break
      case "Loop": {
        const body = sizeOf(operation.body)
        // A loop takes a step of its own, so that an empty one counts too.
        steps += operation.times * (body.steps + 1)
        resultBytes += operation.times * body.resultBytes
        break
      }
      case "Work":
        steps += operation.rounds
        break
      case "Keep":
        steps++
        resultBytes += operation.size ?? 4
        break
      default:
        steps++
    }
  }
  return { steps, resultBytes }
}

/** What is wrong with operations beyond the range of one field; `limit` is the most bytes at a time. */
export const problemIn = (operations: ReadonlyArray<Operation>, limit: 4 | 8): GuestProgramErrorReason | undefined => {
  for (const operation of operations) {
    const problem = operation._tag === "Loop" ? problemIn(operation.body, limit) : problemOf(operation, limit)
    if (problem !== undefined) return problem
  }
  return undefined
}

const problemOf = (
  operation: Exclude<Operation, { readonly _tag: "Loop" }>,
  limit: 4 | 8
): GuestProgramErrorReason | undefined => {
  switch (operation._tag) {
    case "StringOut": {
      const { bytes, size } = operation
      return bytes.length === 0 || bytes.length % size !== 0
        ? { _tag: "BadBytes", bytes: bytes.length, size }
        : undefined
    }
    case "Keep":
      return tooWide(operation.size ?? 4, limit)
    case "Load":
      return tooWide(operation.size, limit)
    case "Store":
      return operation.size < 8 && typeof operation.value === "bigint"
        ? {
          _tag: "BadOperation",
          problem: `a Store of ${operation.size} bytes has a number, not a bigint, as its value`
        }
        : tooWide(operation.size, limit)
    case "PciRead":
    case "PciWrite": {
      const { register, size } = operation
      return (register & 3) + size > 4 ? { _tag: "BadRegister", register, size } : undefined
    }
    default:
      return undefined
  }
}

const tooWide = (size: number, limit: number): GuestProgramErrorReason | undefined =>
  size > limit ? { _tag: "TooWide", size, limit } : undefined
