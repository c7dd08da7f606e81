/**
 * A stream of signed 32-bit words from a seed (xorshift32): enough for choosing an order, and the same on every machine.
 */
export const seededRandom = (seed: number): () => number => {
  // A state of zero would stay zero.
  let state = seed | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state
  }
}
