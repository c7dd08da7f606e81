/**
 * Sizes and addresses as people type them on a command line.
 */
import * as Result from "effect/Result"
import { ADDRESS_SPACE_END, PAGE_BYTES } from "../domain/Limits.ts"

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

const SIZE = /^(\d+)(?:([KMGT])(?:i?B)?|B)?$/i

/**
 * Bytes of RAM: an integer, alone or with K, M, G or T (powers of 1024; `KiB` and `KB` mean the same). A VM's RAM is a
 * positive number of whole pages. The failure says what is expected.
 */
export const parse = (text: string): Result.Result<number, string> => {
  const match = SIZE.exec(text.trim())
  if (match === null) {
    return Result.fail("a number of bytes, or one with K, M, G or T behind it, such as 64M or 1G")
  }
  const bytes = Number(match[1]) * UNITS[(match[2] ?? "").toUpperCase()]!
  if (bytes === 0 || bytes % PAGE_BYTES !== 0) {
    return Result.fail(`a positive multiple of ${PAGE_BYTES} bytes, such as 64M or 1G`)
  }
  return bytes <= ADDRESS_SPACE_END ? Result.succeed(bytes) : Result.fail("at most 4096T, all that x86 can address")
}

/**
 * The size in the largest unit that gives a whole number: `64M`, `65540K`, `1G`.
 */
export const format = (bytes: number): string => {
  const [unit, factor] = Object.entries(UNITS).toReversed().find(([, size]) => bytes % size === 0)!
  return `${bytes / factor}${unit}`
}

/**
 * A guest physical address in decimal or, after `0x`, in hexadecimal.
 */
export const parseAddress = (text: string): Result.Result<number, string> => {
  const isNumber = /^(0x[0-9a-f]+|\d+)$/i.test(text.trim())
  const address = isNumber ? Number(text.trim()) : NaN
  return address < ADDRESS_SPACE_END
    ? Result.succeed(address)
    : Result.fail("a guest physical address, such as 0x1000 or 4096")
}
