/**
 * An Intel 8254 interval timer as PCs wire it: three counters at 1,193,182 Hz and the system control port 0x61, which
 * holds the gate and shows the output of counter 2.
 *
 * Facts: Intel 8254 data sheet (order number 231164); IBM PC/AT Technical Reference, system board, for port 0x61.
 * Times are in clock pulses; {@link pulsesAt} and {@link nanosAt} convert.
 *
 * @since 0.1.0
 */
import { Pit8254Counter } from "./Pit8254Counter.ts"

/**
 * Clock pulses per second: a twelfth of the PC's 14.31818 MHz crystal.
 *
 * @category constants
 * @since 0.1.0
 */
export const PIT_HZ = 1_193_182

const NANOS_PER_SECOND = 1_000_000_000

/**
 * Whole clock pulses in `nanos` nanoseconds. Seconds are split off first, so that no product leaves the exact integers.
 *
 * @category conversions
 * @since 0.1.0
 */
export const pulsesAt = (nanos: number): number => {
  const seconds = Math.floor(nanos / NANOS_PER_SECOND)
  return seconds * PIT_HZ + Math.floor((nanos - seconds * NANOS_PER_SECOND) * PIT_HZ / NANOS_PER_SECOND)
}

/**
 * The first nanosecond at which `pulses` clock pulses have passed.
 *
 * @category conversions
 * @since 0.1.0
 */
export const nanosAt = (pulses: number): number => {
  const seconds = Math.floor(pulses / PIT_HZ)
  return seconds * NANOS_PER_SECOND + Math.ceil((pulses - seconds * PIT_HZ) * NANOS_PER_SECOND / PIT_HZ)
}

const CONTROL_WORD = 3
// Counter 1 of a PC divides by 18 to refresh memory; this bit toggles with each refresh.
const REFRESH_PULSES = 18

const GATE_2 = 0x01
const REFRESH = 0x10
const OUT_2 = 0x20
// Gate, speaker, and the two check-disable bits read back as written.
const WRITABLE = 0x0f

/**
 * The three counters behind ports 0x40 to 0x43, and port 0x61.
 *
 * @category models
 * @since 0.1.0
 */
export class Pit8254Chip {
  readonly counters: readonly [Pit8254Counter, Pit8254Counter, Pit8254Counter]
  private systemControl = 0

  constructor() {
    this.counters = [new Pit8254Counter(true), new Pit8254Counter(true), new Pit8254Counter(false)]
  }

  /** Reads port 0x40 + `offset`. The control word cannot be read: nothing drives the bus. */
  read(offset: number, now: number): number {
    return offset === CONTROL_WORD ? 0xff : this.counters[offset]!.read(now)
  }

  /** Writes port 0x40 + `offset`. The result is the number of the counter that may count otherwise now, if one does. */
  write(offset: number, value: number, now: number): number | undefined {
    if (offset !== CONTROL_WORD) {
      this.counters[offset]!.write(value, now)
      return offset
    }
    const select = value >>> 6
    if (select === 3) {
      this.readBack(value, now)
      return undefined
    }
    const counter = this.counters[select]!
    if ((value & 0x30) === 0) {
      counter.latchCount(now)
      return undefined
    }
    counter.control(value, now)
    return select
  }

  readSystemControl(now: number): number {
    return this.systemControl | (Math.floor(now / REFRESH_PULSES) % 2 === 0 ? 0 : REFRESH) |
      (this.counters[2].out(now) ? OUT_2 : 0)
  }

  writeSystemControl(value: number, now: number): void {
    this.systemControl = value & WRITABLE
    this.counters[2].setGate((value & GATE_2) !== 0, now)
  }

  private readBack(command: number, now: number): void {
    for (let counter = 0; counter < 3; counter++) {
      if ((command & 2 << counter) === 0) continue
      // The two latch bits are active low.
      if ((command & 0x20) === 0) this.counters[counter]!.latchCount(now)
      if ((command & 0x10) === 0) this.counters[counter]!.latchStatus(now)
    }
  }
}
