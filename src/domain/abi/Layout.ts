/**
 * One table of fields per ABI structure. Offsets, size, the encoder, the decoder and the TypeScript type of the decoded
 * object all come from that table, so a structure is written down once and nothing can disagree with it.
 *
 * Fields are placed by the rules of C on x86-64: each at the next multiple of its alignment, the whole padded to its
 * own. All numbers are little-endian. Reserved fields and padding are written as zero and ignored on decoding.
 *
 * **Example** (A structure and its bytes)
 *
 * ```ts
 * import * as Field from "upcall/domain/abi/Field"
 * import * as Layout from "upcall/domain/abi/Layout"
 *
 * const Notify = Layout.struct("acrn_ioreq_notify", {
 *   vmid: Field.u16("vmid"),
 *   reserved: Field.reserved("reserved", Field.u16),
 *   vcpu: Field.u32("vcpu")
 * })
 * Notify.offsets.vcpu // 4
 * Notify.encode({ vmid: 1, vcpu: 2 }) // a Result of 8 bytes
 * ```
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Field, Misfit, Shape } from "./Field.ts"

/**
 * Why bytes or a value were refused. `Short`: `actual` bytes were left where the structure needs `expected`.
 * `FieldOutOfRange`: `value` does not fit the field; `field` is a dotted path such as `gprs.rax`.
 *
 * @category errors
 * @since 0.1.0
 */
export const LayoutErrorReason = Schema.TaggedUnion({
  Short: { structure: Schema.String, expected: Schema.Number, actual: Schema.Number },
  FieldOutOfRange: { structure: Schema.String, field: Schema.String, value: Schema.Unknown }
})

// Values of foreign types may have no string form, and a message must never throw.
const show = (value: unknown): string =>
  typeof value === "number" || typeof value === "bigint"
    ? String(value)
    : value instanceof Uint8Array || Array.isArray(value)
    ? `${value.length} items`
    : `a value of type ${typeof value}`

/**
 * Bytes too short to hold a structure, or a value that does not fit its field. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class LayoutError extends Schema.TaggedError<LayoutError>()("LayoutError", { reason: LayoutErrorReason }) {
  override get message(): string {
    return LayoutErrorReason.match(this.reason, {
      Short: (r) =>
        `${r.structure} needs ${r.expected} bytes but only ${r.actual} are there; pass bytes that hold all of it`,
      FieldOutOfRange: (r) =>
        `${r.structure}.${r.field} cannot hold ${show(r.value)}; pass a value of the field's type and width`
    })
  }
}

/**
 * The table of one structure, its members in the order of C.
 *
 * @category models
 * @since 0.1.0
 */
export type Fields = Readonly<Record<string, Field<unknown>>>

type ValueOfField<F> = F extends Field<infer A> ? A : never

/**
 * The decoded object of a table: u16 and u32 are numbers, u64 is a bigint, bytes and unions are a `Uint8Array` of the
 * exact length; reserved fields and a flexible tail are left out.
 *
 * @category models
 * @since 0.1.0
 */
export type ValueOf<F extends Fields> = {
  readonly [K in keyof F as [ValueOfField<F[K]>] extends [never] ? never : K]: ValueOfField<F[K]>
}

/**
 * The decoded object of a layout, as in `Layout.Value<typeof VmCreation>`.
 *
 * @category models
 * @since 0.1.0
 */
export type Value<L> = L extends Layout<infer F> ? ValueOf<F> : never

/**
 * A structure without the types of its fields.
 *
 * @category models
 * @since 0.1.0
 */
export interface Struct extends Shape {
  readonly fields: Fields
  readonly offsets: Readonly<Record<string, number>>
}

/**
 * One structure: the place of every field, and its coding. Sizes and offsets are in bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Layout<F extends Fields> extends Struct {
  readonly fields: F
  /** Where each field begins, from the start of the structure. */
  readonly offsets: { readonly [K in keyof F]: number }
  /** Reads the structure at `offset` (default 0); the result shares no memory with `bytes`. Fails with `Short`. */
  readonly decode: (bytes: Uint8Array, offset?: number) => Result.Result<ValueOf<F>, LayoutError>
  /** A fresh array of exactly `size` bytes. Fails with `FieldOutOfRange`. */
  readonly encode: (value: ValueOf<F>) => Result.Result<Uint8Array<ArrayBuffer>, LayoutError>
  /** Writes the structure into `target` at `offset` (default 0); a refusal leaves `target` as it was. */
  readonly encodeInto: (value: ValueOf<F>, target: Uint8Array, offset?: number) => Result.Result<void, LayoutError>
}

/**
 * A structure inside a structure.
 *
 * @category fields
 * @since 0.1.0
 */
export const nested = <F extends Fields>(cName: string, layout: Layout<F>): Field<ValueOf<F>> => ({
  cName,
  size: layout.size,
  align: layout.align,
  read: (view, at) => readFields(layout, view, at) as ValueOf<F>,
  write: (view, at, value) => writeFields(layout, view, at, value)
})

/**
 * `length` structures in a row.
 *
 * @category fields
 * @since 0.1.0
 */
export const array = <F extends Fields>(
  cName: string,
  layout: Layout<F>,
  length: number
): Field<ReadonlyArray<ValueOf<F>>> => ({
  cName,
  size: layout.size * length,
  align: layout.align,
  read: (view, at) =>
    Array.from({ length }, (_, index) => readFields(layout, view, at + index * layout.size) as ValueOf<F>),
  write: (view, at, value) => {
    if (!Array.isArray(value) || value.length !== length) {
      return { path: "", value }
    }
    for (let index = 0; index < length; index++) {
      const misfit = writeFields(layout, view, at + index * layout.size, value[index])
      if (misfit !== undefined) {
        return within(String(index), misfit)
      }
    }
    return undefined
  }
})

const within = (name: string, misfit: Misfit): Misfit => ({
  path: misfit.path === "" ? name : `${name}.${misfit.path}`,
  value: misfit.value
})

const readFields = (layout: Struct, view: DataView, at: number): unknown => {
  const value: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(layout.fields)) {
    if (field.omitted !== true) {
      value[name] = field.read(view, at + layout.offsets[name]!)
    }
  }
  return value
}

const writeFields = (layout: Struct, view: DataView, at: number, value: unknown): Misfit | undefined => {
  if (typeof value !== "object" || value === null) {
    return { path: "", value }
  }
  for (const [name, field] of Object.entries(layout.fields)) {
    const misfit = field.write(view, at + layout.offsets[name]!, (value as Record<string, unknown>)[name])
    if (misfit !== undefined) {
      return within(name, misfit)
    }
  }
  return undefined
}

const roundUp = (value: number, align: number): number => Math.ceil(value / align) * align

/**
 * Lays a structure out from its table. `packed` leaves no padding, as `__attribute__((packed))`; `align` raises the
 * alignment, and so the size, as `__attribute__((aligned(n)))`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const struct = <const F extends Fields>(
  cName: string,
  fields: F,
  options: { readonly packed?: boolean; readonly align?: number } = {}
): Layout<F> => {
  const offsets: Record<string, number> = {}
  let end = 0
  let align = options.align ?? 1
  for (const [name, field] of Object.entries(fields)) {
    const fieldAlign = options.packed === true ? 1 : field.align
    offsets[name] = roundUp(end, fieldAlign)
    end = offsets[name] + field.size
    align = Math.max(align, fieldAlign)
  }
  const self: Struct = { cName, fields, offsets, align, size: roundUp(end, align) }

  const short = (bytes: Uint8Array, offset: number): LayoutError | undefined => {
    const inside = Number.isInteger(offset) && offset >= 0
    return inside && offset + self.size <= bytes.length ? undefined : new LayoutError({
      reason: {
        _tag: "Short",
        structure: cName,
        expected: self.size,
        actual: inside ? Math.max(0, bytes.length - offset) : 0
      }
    })
  }

  const encode: Layout<F>["encode"] = (value) => {
    const bytes = new Uint8Array(self.size)
    const misfit = writeFields(self, new DataView(bytes.buffer), 0, value)
    return misfit === undefined ? Result.succeed(bytes) : Result.fail(
      new LayoutError({
        reason: { _tag: "FieldOutOfRange", structure: cName, field: misfit.path, value: misfit.value }
      })
    )
  }

  return {
    ...self,
    fields,
    offsets: offsets as { readonly [K in keyof F]: number },
    encode,
    decode: (bytes, offset = 0) => {
      const error = short(bytes, offset)
      return error === undefined
        ? Result.succeed(
          readFields(self, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset) as ValueOf<F>
        )
        : Result.fail(error)
    },
    encodeInto: (value, target, offset = 0) => {
      const error = short(target, offset)
      return error === undefined
        ? Result.map(encode(value), (bytes) => target.set(bytes, offset))
        : Result.fail(error)
    }
  }
}
