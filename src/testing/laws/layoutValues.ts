/** Values of any layout: bytes to decode them from, and what becomes of one when a leaf of it does not fit. */
import type * as Result from "effect/Result"
import type * as Layout from "../../domain/abi/Layout.ts"

/** A layout's coding takes the values of its own table only; who has any layout hands it values that it got from it. */
export type AnyLayout = Layout.Struct & {
  readonly decode: (bytes: Uint8Array, offset?: number) => Result.Result<unknown, Layout.LayoutError>
  readonly encode: (value: never) => Result.Result<Uint8Array, Layout.LayoutError>
  readonly encodeInto: (value: never, target: Uint8Array, offset?: number) => Result.Result<void, Layout.LayoutError>
}

/** So many bytes, by a pattern that is begun again at its end. */
export const repeat = (pattern: ReadonlyArray<number>, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => pattern[index % pattern.length]!)

/** The paths of all leaves of a decoded object, with their values. */
export const leavesOf = (
  value: unknown,
  path: ReadonlyArray<string> = []
): ReadonlyArray<{ readonly path: ReadonlyArray<string>; readonly leaf: unknown }> =>
  typeof value === "object" && value !== null && !(value instanceof Uint8Array)
    ? Object.entries(value).flatMap(([name, inner]) => leavesOf(inner, [...path, name]))
    : [{ path, leaf: value }]

/** A copy of a decoded object with one leaf replaced. */
export const replaced = (value: unknown, [name, ...rest]: ReadonlyArray<string>, leaf: unknown): unknown => {
  if (name === undefined) return leaf
  const copy: Record<string, unknown> = Array.isArray(value)
    ? [...value] as unknown as Record<string, unknown>
    : { ...value as Record<string, unknown> }
  copy[name] = replaced(copy[name], rest, leaf)
  return copy
}

/** What no field takes that holds such a leaf. */
export const misfitsFor = (leaf: unknown): ReadonlyArray<unknown> =>
  typeof leaf === "bigint"
    ? [-1n, 2n ** 64n, 1, undefined, null]
    : leaf instanceof Uint8Array
    ? [new Uint8Array(leaf.length + 1), new Uint8Array(leaf.length - 1), Array.from(leaf), undefined]
    : [-1, 2 ** 32, 0.5, Number.NaN, 1n, "1", undefined]
