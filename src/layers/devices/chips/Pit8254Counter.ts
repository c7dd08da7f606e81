/**
 * One counter of an Intel 8254 interval timer, as a function of time: nothing ticks, every question names the clock
 * pulse that it asks about.
 *
 * Facts: Intel 8254 data sheet (order number 231164): programming, read-back, and the six modes with their gate.
 * Times are in clock pulses (CLK falling edges) since an origin that the caller chooses; they must not go back.
 *
 * @since 0.1.0
 */

/** What a counter counts from and since when: it holds `count` (1 to 65536) at pulse `loadedAt`. */
interface Run {
  readonly count: number
  readonly loadedAt: number
  /** OUT until the load, if it was low: a one-shot that is triggered again goes on without a gap. */
  readonly isLowBefore?: boolean
  /** The strobe came, and the gate has stopped the counter since. */
  readonly hasStruck?: boolean
}

/**
 * A counter as a person would describe it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pit8254CounterView {
  /** 0 to 5. */
  readonly mode: number
  /** What the guest would read: 16 bits, in BCD when `bcd`. */
  readonly count: number
  readonly bcd: boolean
  readonly gate: boolean
  readonly out: boolean
}

const ACCESS_LOW = 1
const ACCESS_BOTH = 3

const fromBcd = (raw: number): number =>
  (raw >>> 12 & 15) * 1000 + (raw >>> 8 & 15) * 100 + (raw >>> 4 & 15) * 10 + (raw & 15)

const toBcd = (value: number): number =>
  (Math.floor(value / 1000) % 10) << 12 | (Math.floor(value / 100) % 10) << 8 | (Math.floor(value / 10) % 10) << 4 |
  value % 10

const isPeriodic = (mode: number): boolean => mode === 2 || mode === 3

/** Pulses of a square wave's high half. */
const highHalf = (count: number): number => Math.ceil(count / 2)

/**
 * One counter with its control logic, latches and gate.
 *
 * @category models
 * @since 0.1.0
 */
export class Pit8254Counter {
  private mode = 3
  private access = ACCESS_BOTH
  private isBcd = false
  private gate: boolean
  private run: Run | undefined
  /** What a periodic counter goes on with after the current (half) cycle. */
  private next: { readonly at: number; readonly run: Run } | undefined
  /** What a triggered counter loads when its gate rises. */
  private armed: number | undefined
  /** The pulse at which a low gate stopped the counter. */
  private stoppedAt: number | undefined
  /** What is read while nothing was loaded. */
  private still = 0
  private lowWritten: number | undefined
  private isHighNext = false
  private latchedCount: number | undefined
  private latchedStatus: number | undefined

  constructor(gate: boolean) {
    this.gate = gate
  }

  /** Takes a control word's access, mode and BCD bits. The counter stands still until a count is written. */
  control(word: number, now: number): void {
    this.still = this.count(now)
    this.access = word >>> 4 & 3
    const mode = word >>> 1 & 7
    // Bit 3 of the mode is "don't care" for the periodic ones.
    this.mode = mode > 5 ? mode - 4 : mode
    this.isBcd = (word & 1) !== 0
    this.forgetCount()
    this.lowWritten = undefined
    this.isHighNext = false
    this.latchedCount = undefined
    this.latchedStatus = undefined
  }

  /** Writes a byte of the initial count. */
  write(byte: number, now: number): void {
    if (this.access === ACCESS_BOTH && this.lowWritten === undefined) {
      this.lowWritten = byte
      // Half a count stops this mode, so that it does not expire on a mixture of two counts.
      if (this.mode === 0) {
        this.still = this.count(now)
        this.forgetCount()
      }
      return
    }
    const raw = this.access === ACCESS_BOTH
      ? byte << 8 | this.lowWritten!
      : this.access === ACCESS_LOW
      ? byte
      : byte << 8
    this.lowWritten = undefined
    this.load(this.isBcd ? fromBcd(raw) % 10_000 || 10_000 : raw || 65_536, now)
  }

  /** Reads a byte: of a latched status, else of a latched count, else of the count as it is. */
  read(now: number): number {
    if (this.latchedStatus !== undefined) {
      const status = this.latchedStatus
      this.latchedStatus = undefined
      return status
    }
    const count = this.latchedCount ?? this.count(now)
    if (this.access === ACCESS_BOTH) {
      const isHigh = this.isHighNext
      this.isHighNext = !isHigh
      if (isHigh) this.latchedCount = undefined
      return isHigh ? count >>> 8 : count & 0xff
    }
    this.latchedCount = undefined
    return this.access === ACCESS_LOW ? count & 0xff : count >>> 8
  }

  /** Holds the count for the next reads. A count that is held already stays. */
  latchCount(now: number): void {
    this.latchedCount ??= this.count(now)
  }

  /** Holds the status byte for the next read. A status that is held already stays. */
  latchStatus(now: number): void {
    this.latchedStatus ??= (this.out(now) ? 0x80 : 0) | (this.isNullCount(now) ? 0x40 : 0) | this.access << 4 |
      this.mode << 1 | (this.isBcd ? 1 : 0)
  }

  setGate(gate: boolean, now: number): void {
    if (gate === this.gate) return
    this.settle(now)
    if (gate) this.raiseGate(now)
    else if (this.run !== undefined && this.mode !== 1 && this.mode !== 5) {
      this.stoppedAt = Math.max(now, this.run.loadedAt)
    }
    this.gate = gate
  }

  /** The count as the guest would read it. */
  count(now: number): number {
    this.settle(now)
    const value = this.value(now)
    return this.isBcd ? toBcd(value % 10_000) : value & 0xffff
  }

  /** The OUT pin. */
  out(now: number): boolean {
    this.settle(now)
    const run = this.run
    if (run === undefined) return this.mode !== 0
    const { count } = run
    const passed = this.passed(run, now)
    switch (this.mode) {
      case 0:
        return passed >= count
      case 1:
        return passed < 0 ? run.isLowBefore !== true : passed >= count
      case 2:
        return !this.gate || passed < 0 || count === 1 || passed % count !== count - 1
      case 3:
        return !this.gate || passed < 0 || count === 1 || passed % count < highHalf(count)
      default:
        // The strobe lasts one pulse, also when a falling gate stops the count in it.
        return passed !== count || this.stoppedAt !== undefined || run.hasStruck === true
    }
  }

  /** The first pulse after `now` at which OUT goes from low to high; `Infinity` if nothing lets it. */
  nextRise(now: number): number {
    this.settle(now)
    if (this.run === undefined || this.stoppedAt !== undefined) return Infinity
    const rise = this.riseAfter(this.run, now)
    const { next } = this
    return next === undefined || rise <= next.at ? rise : this.riseAfter(next.run, next.at)
  }

  view(now: number): Pit8254CounterView {
    return { mode: this.mode, count: this.count(now), bcd: this.isBcd, gate: this.gate, out: this.out(now) }
  }

  private load(count: number, now: number): void {
    this.settle(now)
    const loaded = { count, loadedAt: now + 1 }
    if (this.mode === 1 || this.mode === 5) {
      this.armed = count
      // A trigger before this very pulse loads what is there by then.
      if (this.run !== undefined && now < this.run.loadedAt) this.run = { ...this.run, count }
    } else if (isPeriodic(this.mode) && this.run !== undefined && now >= this.run.loadedAt) {
      this.next = this.goingOnWith(this.run, count, now)
    } else {
      this.run = loaded
      this.stoppedAt = this.gate ? undefined : loaded.loadedAt
    }
  }

  /** A count written to a periodic counter is used from the end of its (half) cycle on. */
  private goingOnWith(run: Run, count: number, now: number): { readonly at: number; readonly run: Run } {
    const cycles = Math.max(0, Math.floor((now - run.loadedAt) / run.count))
    const cycleStart = run.loadedAt + cycles * run.count
    const fall = cycleStart + highHalf(run.count)
    if (this.mode === 3 && now < fall && run.count > 1) {
      return { at: fall, run: { count, loadedAt: fall - highHalf(count) } }
    }
    const at = cycleStart + run.count
    return { at, run: { count, loadedAt: at } }
  }

  private raiseGate(now: number): void {
    const { run, stoppedAt } = this
    this.stoppedAt = undefined
    if (this.mode === 0 || this.mode === 4) {
      if (run !== undefined && stoppedAt !== undefined) {
        this.run = {
          count: run.count,
          loadedAt: run.loadedAt + Math.max(0, now - stoppedAt),
          hasStruck: stoppedAt - run.loadedAt >= run.count
        }
      }
    } else if (isPeriodic(this.mode)) {
      const count = this.next?.run.count ?? run?.count
      this.next = undefined
      if (count !== undefined) this.run = { count, loadedAt: now + 1 }
    } else if (this.armed !== undefined) {
      this.run = { count: this.armed, loadedAt: now + 1, isLowBefore: !this.out(now) }
    }
  }

  private forgetCount(): void {
    this.run = undefined
    this.next = undefined
    this.armed = undefined
    this.stoppedAt = undefined
  }

  private settle(now: number): void {
    if (this.next === undefined || this.next.at > now || this.stoppedAt !== undefined) return
    this.run = this.next.run
    this.next = undefined
  }

  /** Pulses that were counted since the load; negative before it. */
  private passed(run: Run, now: number): number {
    return (this.stoppedAt === undefined ? now : Math.min(now, this.stoppedAt)) - run.loadedAt
  }

  private value(now: number): number {
    const run = this.run
    if (run === undefined) return this.still
    const { count } = run
    const passed = this.passed(run, now)
    if (passed < 0) return count
    switch (this.mode) {
      case 2:
        return count - passed % count
      case 3: {
        const phase = passed % count
        const half = highHalf(count)
        // It counts down by two, an odd count from one less.
        return count - count % 2 - 2 * (phase < half ? phase : phase - half)
      }
      default: {
        const modulus = this.isBcd ? 10_000 : 65_536
        return ((count - passed) % modulus + modulus) % modulus
      }
    }
  }

  private isNullCount(now: number): boolean {
    this.settle(now)
    if (this.run === undefined || now < this.run.loadedAt || this.next !== undefined) return true
    return this.armed !== undefined && this.armed !== this.run.count
  }

  private riseAfter(run: Run, now: number): number {
    const { count, hasStruck, loadedAt } = run
    switch (this.mode) {
      case 0:
      case 1:
        return after(loadedAt + count, now)
      case 2:
      case 3:
        // A count of 1 is illegal in these modes; OUT then never falls.
        return count === 1 ? Infinity : loadedAt + count * Math.max(1, Math.floor((now - loadedAt) / count) + 1)
      default:
        return hasStruck === true ? Infinity : after(loadedAt + count + 1, now)
    }
  }
}

const after = (pulse: number, now: number): number => pulse > now ? pulse : Infinity
