/**
 * How often to look for something before sleeping is the better way to wait for it. It learns from what came while it
 * looked, and counts looks instead of time, so that looking costs nothing but the look.
 *
 * Two sides that both look hand over in less than a microsecond, two that both sleep in a few, on one processor. Worst is
 * one that looks for another that sleeps, for it keeps the processor which that one would be woken on. So it looks only
 * while the other side was seen awake; but somebody has to begin.
 */

const FEWEST = 16
const FORGETTING_SHIFT = 4
// What is always too late is never seen to come, so how long it takes is found out by looking long now and then.
const WAITS_PER_TRIAL = 16

export interface SpinOptions {
  /** The most looks at a time; 0 never looks twice. */
  readonly most: number
  /** Whether to try now and then, though the other side sleeps. One of two sides should. */
  readonly tries: boolean
}

export class Spin {
  protected readonly most: number
  private readonly tries: boolean
  private limit: number
  private looks = 0
  private allowed = 0
  private waits = 0

  constructor({ most, tries }: SpinOptions) {
    this.most = most
    this.tries = tries
    this.limit = most
  }

  /** A wait begins. */
  begin(isOtherAwake: boolean): void {
    this.looks = 0
    this.waits++
    const isTrial = (isOtherAwake || this.tries) && this.waits % WAITS_PER_TRIAL === 0
    this.allowed = isTrial ? this.most : isOtherAwake ? this.limit : 0
  }

  /** It is not there yet: whether to look again. */
  again(): boolean {
    return this.looks++ < this.allowed
  }

  /** It came while it was looked for. */
  came(): void {
    if (this.allowed === 0) return
    const enough = Math.min(this.most, FEWEST + 2 * this.looks)
    if (enough >= this.limit) this.limit = enough
    else this.limit -= (this.limit - enough) >> FORGETTING_SHIFT
  }

  /** It did not come. */
  missed(): void {
    if (this.allowed > 0) this.limit = Math.min(this.most, FEWEST + (this.limit >> 1))
  }
}
