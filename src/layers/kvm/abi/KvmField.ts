/**
 * The kinds of members that `<linux/kvm.h>` and x86's `<asm/kvm.h>` have and ACRN's header has not: bytes, signed
 * integers, and rows of 64-bit words.
 */
import { type Field, u64 } from "../../../domain/abi/Field.ts"

const integer =
  (size: 1 | 4, minimum: number, maximum: number, get: "getUint8" | "getInt32", set: "setUint8" | "setInt32") =>
  (cName: string): Field<number> => ({
    cName,
    size,
    align: size,
    read: (view, at) => view[get](at, true),
    write: (view, at, value) => {
      if (typeof value !== "number" || !Number.isInteger(value) || value < minimum || value > maximum) {
        return { path: "", value }
      }
      view[set](at, value, true)
      return undefined
    }
  })

/** An unsigned 8-bit integer, a number. */
export const u8 = integer(1, 0, 0xff, "getUint8", "setUint8")

/** A signed 32-bit integer, a number. */
export const i32 = integer(4, -0x8000_0000, 0x7fff_ffff, "getInt32", "setInt32")

/** A signed 64-bit integer, a bigint. */
export const i64 = (cName: string): Field<bigint> => ({
  cName,
  size: 8,
  align: 8,
  read: (view, at) => view.getBigInt64(at, true),
  write: (view, at, value) => {
    if (typeof value !== "bigint" || BigInt.asIntN(64, value) !== value) {
      return { path: "", value }
    }
    view.setBigInt64(at, value, true)
    return undefined
  }
})

/** `length` unsigned 64-bit integers, an array of bigints. */
export const u64s = (cName: string, length: number): Field<ReadonlyArray<bigint>> => {
  const word = u64(cName)
  return {
    cName,
    size: word.size * length,
    align: word.align,
    read: (view, at) => Array.from({ length }, (_, index) => word.read(view, at + index * word.size)),
    write: (view, at, value) => {
      if (!Array.isArray(value) || value.length !== length) {
        return { path: "", value }
      }
      for (let index = 0; index < length; index++) {
        const misfit = word.write(view, at + index * word.size, value[index])
        if (misfit !== undefined) {
          return { path: String(index), value: misfit.value }
        }
      }
      return undefined
    }
  }
}
