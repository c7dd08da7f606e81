/**
 * Checking the numbers that a layer is given, before it builds anything of them.
 */

/** An option with the least and the most it can be, both inclusive; one that was not given is not checked. */
export type Bounds = readonly [option: string, value: number | undefined, least: number, most: number]

/** What stands in a `BadOption` reason. */
export interface BadOption {
  readonly option: string
  readonly value: number
  readonly expected: string
}

/** The first option that is no integer within its bounds. */
export const findBadOption = (options: ReadonlyArray<Bounds>): BadOption | undefined => {
  for (const [option, value, least, most] of options) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most)) continue
    return { option, value, expected: `an integer from ${least} to ${most}` }
  }
  return undefined
}

/** Seeds are 32-bit words, signed or not. */
export const MIN_SEED = -0x8000_0000
export const MAX_SEED = 0xffff_ffff

/** Wall-clock times that a JavaScript Date can show, in milliseconds since 1970. */
export const MAX_EPOCH_MS = 8.64e15
