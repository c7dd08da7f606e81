/**
 * The few pieces of the WebAssembly binary format that are needed to write a small module.
 *
 * Facts: WebAssembly Core Specification, chapter 5 (binary format).
 *
 * @since 0.1.0
 */

/**
 * Magic number and version 1, with which every module begins.
 *
 * @category constants
 * @since 0.1.0
 */
export const HEADER: ReadonlyArray<number> = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]

/**
 * Section ids.
 *
 * @category constants
 * @since 0.1.0
 */
export const Section = { types: 1, imports: 2, functions: 3, exports: 7, code: 10 } as const

/**
 * Kinds of imports and exports.
 *
 * @category constants
 * @since 0.1.0
 */
export const Kind = { function: 0, global: 3 } as const

/**
 * Type forms.
 *
 * @category constants
 * @since 0.1.0
 */
export const Type = { i32: 0x7f, function: 0x60, nothing: 0x40 } as const

/**
 * Instructions.
 *
 * @category constants
 * @since 0.1.0
 */
export const Op = {
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  call: 0x10,
  localGet: 0x20,
  localSet: 0x21,
  globalGet: 0x23
} as const

/**
 * Encodes a natural number below 2^32 as LEB128.
 *
 * @category encoding
 * @since 0.1.0
 */
export const natural = (value: number): Array<number> =>
  value < 0x80 ? [value] : [value % 0x80 + 0x80, ...natural(Math.floor(value / 0x80))]

/**
 * Encodes a name of ASCII characters.
 *
 * @category encoding
 * @since 0.1.0
 */
export const name = (text: string): Array<number> => [
  ...natural(text.length),
  ...Array.from(text, (character) => character.charCodeAt(0))
]

/**
 * Encodes a vector: its length, then its items.
 *
 * @category encoding
 * @since 0.1.0
 */
export const vector = (items: ReadonlyArray<ReadonlyArray<number>>): Array<number> => [
  ...natural(items.length),
  ...items.flat()
]

/**
 * Encodes what its own length stands before: the body of a section or of a function.
 *
 * @category encoding
 * @since 0.1.0
 */
export const sized = (body: ReadonlyArray<number>): Array<number> => [...natural(body.length), ...body]

/**
 * Encodes a section.
 *
 * @category encoding
 * @since 0.1.0
 */
export const section = (id: number, items: ReadonlyArray<ReadonlyArray<number>>): Array<number> => [
  id,
  ...sized(vector(items))
]
