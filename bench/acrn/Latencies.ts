/** Times from a vCPU's trap to the completion of its request, of one vCPU. */

// The last ones are enough, and the array must not grow while something is measured.
const KEPT = 2 ** 18

const MICRO = 1e3

export class Latencies {
  private readonly millis = new Float64Array(KEPT)
  private count = 0
  private trappedAt = NaN

  /** To be called when the hypervisor tells that there is a request. */
  readonly trapped = (): void => {
    this.trappedAt = performance.now()
  }

  /** To be called when the hypervisor is told that the request is finished. */
  readonly completed = (): void => {
    this.millis[this.count++ % KEPT] = performance.now() - this.trappedAt
  }

  /** The next one that is completed was held: it is no sample. */
  readonly skipNext = (): void => {
    this.trappedAt = NaN
  }

  /** In microseconds. */
  quantiles(): { readonly p50: number; readonly p99: number } {
    const sorted = this.millis.slice(0, this.count).filter((each) => !Number.isNaN(each)).toSorted()
    const at = (part: number) => Number((sorted[Math.floor(sorted.length * part)]! * MICRO).toPrecision(4))
    return { p50: at(0.5), p99: at(0.99) }
  }
}
