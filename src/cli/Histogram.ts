/**
 * A histogram of durations whose buckets grow with the value: 16 to each doubling, so that a quantile is wrong by at
 * most one part in 16, whatever the range, and recording costs one increment.
 */

const SUB_BUCKETS = 16
const SUB_BITS = 4
const MAX_VALUE = Number.MAX_SAFE_INTEGER
/** Values up to 2^53 need 53 - 4 doublings beyond the exact ones. */
const BUCKETS = SUB_BUCKETS * (53 - SUB_BITS + 1)

/** Which bucket holds a value: integers below 32 have one of their own, larger ones share. Values are cut to 0..2^53. */
export const bucketOf = (value: number): number => {
  const whole = Math.min(Math.max(0, Math.floor(value)), MAX_VALUE)
  if (whole < SUB_BUCKETS) return whole
  // Math.log2 rounds up just below a power of two, which the halving corrects.
  let octave = Math.floor(Math.log2(whole))
  if (2 ** octave > whole) octave--
  const step = 2 ** (octave - SUB_BITS)
  return (octave - SUB_BITS) * SUB_BUCKETS + Math.floor(whole / step)
}

/** The smallest value of a bucket. */
export const lowerBound = (bucket: number): number => {
  if (bucket < SUB_BUCKETS) return bucket
  const octave = Math.floor(bucket / SUB_BUCKETS) - 1
  return (bucket - octave * SUB_BUCKETS) * 2 ** octave
}

/** The largest value of a bucket. */
export const upperBound = (bucket: number): number => lowerBound(bucket + 1) - 1

/** Counts values, in a fixed amount of memory. */
export class Histogram {
  count = 0
  max = 0
  private readonly counts = new Float64Array(BUCKETS)

  record(value: number): void {
    this.counts[bucketOf(value)]!++
    this.count++
    if (value > this.max) this.max = value
  }

  /**
   * A value that at least the part `q` (0 to 1) of the recorded ones does not exceed: the upper end of its bucket, and
   * never more than the largest recorded. 0 when nothing was recorded.
   */
  quantile(q: number): number {
    const wanted = Math.max(1, Math.ceil(q * this.count))
    let seen = 0
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.counts[bucket]!
      if (seen >= wanted) return Math.min(upperBound(bucket), this.max)
    }
    return this.max
  }
}
