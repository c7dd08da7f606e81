/**
 * KVM's lists: a header whose first word counts the items that follow it, as `struct kvm_msrs` is. A list goes to KVM
 * encoded, or as room for as many items as it may fill in.
 */
import * as Result from "effect/Result"
import type { Field } from "../../../domain/abi/Field.ts"
import { LayoutError, type Struct } from "../../../domain/abi/Layout.ts"

export interface CountedList<A> {
  /** Zeros for `count` items with the count set; KVM fills them in, and lowers the count when it has fewer. */
  readonly room: (count: number) => Uint8Array<ArrayBuffer>
  /** The header and the items. Fails with `FieldOutOfRange`; the path names the item by its index. */
  readonly encode: (items: ReadonlyArray<A>) => Result.Result<Uint8Array<ArrayBuffer>, LayoutError>
  /** As many items as the header counts. Fails with `Short` when they are not all there. */
  readonly decode: (bytes: Uint8Array) => Result.Result<ReadonlyArray<A>, LayoutError>
}

/** The lists that begin with `header`; the rest of it stays zero. */
export const make = <A>(header: Struct, item: Field<A>): CountedList<A> => {
  const itemAt = (index: number): number => header.size + index * item.size

  const room = (count: number): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(itemAt(count))
    new DataView(bytes.buffer).setUint32(0, count, true)
    return bytes
  }

  const short = (expected: number, actual: number): Result.Result<never, LayoutError> =>
    Result.fail(new LayoutError({ reason: { _tag: "Short", structure: header.cName, expected, actual } }))

  return {
    room,
    encode: (items) => {
      const bytes = room(items.length)
      const view = new DataView(bytes.buffer)
      for (const [index, value] of items.entries()) {
        const misfit = item.write(view, itemAt(index), value)
        if (misfit !== undefined) {
          const field = [item.cName, String(index), misfit.path].filter((part) => part !== "").join(".")
          return Result.fail(
            new LayoutError({
              reason: { _tag: "FieldOutOfRange", structure: header.cName, field, value: misfit.value }
            })
          )
        }
      }
      return Result.succeed(bytes)
    },
    decode: (bytes) => {
      if (bytes.length < header.size) {
        return short(header.size, bytes.length)
      }
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const count = view.getUint32(0, true)
      return itemAt(count) <= bytes.length
        ? Result.succeed(Array.from({ length: count }, (_, index) => item.read(view, itemAt(index))))
        : short(itemAt(count), bytes.length)
    }
  }
}
