/**
 * The kinds of rows that a table of `Layout.struct` is made of. A field knows its size, its alignment and how to read
 * and write one value of itself; `Layout` knows where it goes.
 *
 * @since 0.1.0
 */

/**
 * What a writer found wrong: the path inside the field (empty for the field itself) and the value that does not fit.
 *
 * @category models
 * @since 0.1.0
 */
export interface Misfit {
  readonly path: string
  readonly value: unknown
}

/**
 * One member of a C structure whose decoded value is an `A`. `cName` is its name in C; `size` and `align` are in bytes.
 * An `omitted` field (an `A` of `never`) is left out of the decoded object. `alternatives` are the members of a union.
 *
 * @category models
 * @since 0.1.0
 */
export interface Field<out A> {
  readonly cName: string
  readonly size: number
  readonly align: number
  readonly omitted?: boolean
  readonly alternatives?: Readonly<Record<string, Shape>>
  readonly read: (view: DataView, at: number) => A
  readonly write: (view: DataView, at: number, value: unknown) => Misfit | undefined
}

/**
 * A type's name in C, its size and its alignment in bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shape {
  readonly cName: string
  readonly size: number
  readonly align: number
}

type Scalar<A> = (cName: string) => Field<A>

const scalar = <A extends number | bigint>(
  size: 2 | 4 | 8,
  fits: (value: unknown) => value is A,
  read: (view: DataView, at: number) => A,
  store: (view: DataView, at: number, value: A) => void
): Scalar<A> =>
(cName) => ({
  cName,
  size,
  align: size,
  read,
  write: (view, at, value) => {
    if (!fits(value)) {
      return { path: "", value }
    }
    store(view, at, value)
    return undefined
  }
})

const unsigned = (maximum: number) => (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= maximum

/**
 * An unsigned 16-bit integer, a number.
 *
 * @category fields
 * @since 0.1.0
 */
export const u16 = scalar(
  2,
  unsigned(0xffff),
  (view, at) => view.getUint16(at, true),
  (view, at, value) => view.setUint16(at, value, true)
)

/**
 * An unsigned 32-bit integer, a number.
 *
 * @category fields
 * @since 0.1.0
 */
export const u32 = scalar(
  4,
  unsigned(0xffff_ffff),
  (view, at) => view.getUint32(at, true),
  (view, at, value) => view.setUint32(at, value, true)
)

/**
 * An unsigned 64-bit integer, a bigint.
 *
 * @category fields
 * @since 0.1.0
 */
export const u64 = scalar(
  8,
  (value): value is bigint => typeof value === "bigint" && BigInt.asUintN(64, value) === value,
  (view, at) => view.getBigUint64(at, true),
  (view, at, value) => view.setBigUint64(at, value, true)
)

/**
 * `length` raw bytes.
 *
 * @category fields
 * @since 0.1.0
 */
export const bytes = (cName: string, length: number): Field<Uint8Array> => ({
  cName,
  size: length,
  align: 1,
  read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, length).slice(),
  write: (view, at, value) => {
    if (!(value instanceof Uint8Array) || value.length !== length) {
      return { path: "", value }
    }
    new Uint8Array(view.buffer, view.byteOffset + at, length).set(value)
    return undefined
  }
})

/**
 * A union of `length` bytes. It decodes to its raw bytes: which alternative they hold is told by another field, so the
 * caller decodes them with that alternative's layout.
 *
 * @category fields
 * @since 0.1.0
 */
export const union = (cName: string, length: number, alternatives: Record<string, Shape>): Field<Uint8Array> => ({
  ...bytes(cName, length),
  align: Math.max(...Object.values(alternatives).map((alternative) => alternative.align)),
  alternatives
})

const omitted = (cName: string, size: number, align: number): Field<never> => ({
  cName,
  size,
  align,
  omitted: true,
  read: () => undefined as never,
  write: () => undefined
})

/**
 * Bytes that are written as zero and ignored on decoding: `length` items of a scalar kind.
 *
 * @category fields
 * @since 0.1.0
 */
export const reserved = (cName: string, kind: Scalar<number | bigint>, length = 1): Field<never> => {
  const { align, size } = kind(cName)
  return omitted(cName, size * length, align)
}

/**
 * A flexible array member of C: it takes no room in the structure and marks where its items begin.
 *
 * @category fields
 * @since 0.1.0
 */
export const tail = (cName: string, item: Shape): Field<never> => omitted(cName, 0, item.align)
