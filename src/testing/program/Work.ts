/** What a guest computes when it is to compute: a bijection of 32-bit words, from instructions that every vCPU has. */

export const ROTATION = 5
export const ADDEND = 0x9e37_79b9
export const MASK = 0x5bd1_e995

export const after = (accumulator: number, rounds: number): number => {
  let word = accumulator
  for (let round = 0; round < rounds; round++) {
    word = (word << ROTATION | word >>> (32 - ROTATION)) + ADDEND ^ MASK
  }
  return word >>> 0
}
