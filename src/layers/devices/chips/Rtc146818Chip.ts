/**
 * An MC146818 real-time clock with its 114 bytes of CMOS memory, as PCs use it, as a function of time: nothing ticks,
 * every question names its nanosecond.
 *
 * Facts: Motorola MC146818 data sheet (registers A to D, alarms, periodic rates, update cycle); the century at 0x32 and
 * the memory sizes at 0x15 to 0x18, 0x30, 0x31, 0x34 and 0x35 are where PC firmware keeps them.
 * Times are in nanoseconds of an origin that the caller chooses; they must not go back.
 *
 * @since 0.1.0
 */
import { type CalendarTime, fromSeconds, toSeconds, weekday } from "./CalendarTime.ts"

const NANOS_PER_SECOND = 1_000_000_000
const SECONDS_PER_DAY = 86_400
const KIB = 1024
const MIB = 1024 * KIB

/** An update is announced this long before (tBUC); it then takes effect at once. */
const UPDATE_WARNING_NANOS = 244_000
/** The first update after the divider was released comes after half a second. */
const HALF_SECOND = NANOS_PER_SECOND / 2

const SECOND = 0x00
const SECOND_ALARM = 0x01
const MINUTE = 0x02
const MINUTE_ALARM = 0x03
const HOUR = 0x04
const HOUR_ALARM = 0x05
const WEEKDAY = 0x06
const DAY = 0x07
const MONTH = 0x08
const YEAR = 0x09
const REGISTER_A = 0x0a
const REGISTER_B = 0x0b
const REGISTER_C = 0x0c
const REGISTER_D = 0x0d
const CENTURY = 0x32

const A_UPDATE_IN_PROGRESS = 0x80
const A_DIVIDER_RESET = 0x60
const A_RATE = 0x0f
const B_SET = 0x80
const B_UPDATE_ENABLE = 0x10
const B_SQUARE_WAVE = 0x08
const B_BINARY = 0x04
const B_24_HOURS = 0x02
const C_INTERRUPT = 0x80
const D_VALID = 0x80

/** Interrupt sources: a flag in register C, and at the same bit its enable in register B. */
const PERIODIC = 0x40
const ALARM = 0x20
const UPDATE = 0x10
const SOURCES = PERIODIC | ALARM | UPDATE

/** An alarm field from here on matches anything. */
const DONT_CARE = 0xc0

const toBcd = (value: number): number => Math.floor(value / 10) % 10 << 4 | value % 10
const fromBcd = (raw: number): number => (raw >>> 4) * 10 + (raw & 15)

const secondOfDay = (time: CalendarTime): number =>
  (((time.hour * 60 + time.minute) * 60 + time.second) % SECONDS_PER_DAY + SECONDS_PER_DAY) % SECONDS_PER_DAY

const low = (value: number): number => value & 0xff
const high = (value: number): number => value >>> 8 & 0xff

/**
 * What the clock shows, and since when: at `since`, `seconds` after 1970 had just begun; it is `now`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rtc146818Start {
  readonly seconds: number
  readonly since: number
  readonly now: number
  readonly memoryBytes: number
}

/**
 * One clock.
 *
 * @category models
 * @since 0.1.0
 */
export class Rtc146818Chip {
  private index = 0
  private readonly cmos = new Uint8Array(128)
  private registerA = 0x26
  private registerB = B_24_HOURS
  private flags = 0
  /** The time shown in the second that began at `since`. It only moves on while {@link isRunning}. */
  private time: CalendarTime
  private since: number
  private settledAt: number

  constructor(start: Rtc146818Start) {
    this.time = fromSeconds(start.seconds)
    this.since = start.since
    this.settledAt = start.now
    this.describeMemory(start.memoryBytes)
  }

  /** The IRQ pin, as of the last access or {@link settle}. */
  get interrupt(): boolean {
    return (this.flags & this.registerB & SOURCES) !== 0
  }

  /** Reads port 0x70 + `offset`. The index cannot be read: nothing drives the bus. */
  read(offset: number, now: number): number {
    if (offset === 0) return 0xff
    this.settle(now)
    switch (this.index) {
      case SECOND:
        return this.encode(this.time.second)
      case MINUTE:
        return this.encode(this.time.minute)
      case HOUR:
        return this.encodeHour(this.time.hour)
      case WEEKDAY:
        return this.encode(weekday(this.time))
      case DAY:
        return this.encode(this.time.day)
      case MONTH:
        return this.encode(this.time.month)
      case YEAR:
        return this.encode(this.time.year % 100)
      case CENTURY:
        return this.encode(Math.floor(this.time.year / 100) % 100)
      case REGISTER_A:
        return this.registerA | (this.isUpdateNear(now) ? A_UPDATE_IN_PROGRESS : 0)
      case REGISTER_B:
        return this.registerB
      case REGISTER_C: {
        const flags = this.flags | (this.interrupt ? C_INTERRUPT : 0)
        this.flags = 0
        return flags
      }
      case REGISTER_D:
        return D_VALID
      default:
        return this.cmos[this.index]!
    }
  }

  /** Writes port 0x70 + `offset`. The index's top bit (NMI mask) is dropped. */
  write(offset: number, value: number, now: number): void {
    if (offset === 0) {
      this.index = value & 0x7f
      return
    }
    this.settle(now)
    switch (this.index) {
      case SECOND:
        return this.set({ second: this.decode(value) })
      case MINUTE:
        return this.set({ minute: this.decode(value) })
      case HOUR:
        return this.set({ hour: this.decodeHour(value) })
      case WEEKDAY:
        // It follows from the date.
        return
      case DAY:
        return this.set({ day: this.decode(value) })
      case MONTH:
        return this.set({ month: this.decode(value) })
      case YEAR:
        return this.set({ year: Math.floor(this.time.year / 100) * 100 + this.decode(value) })
      case CENTURY:
        return this.set({ year: this.decode(value) * 100 + this.time.year % 100 })
      case REGISTER_A:
        return this.writeRegisterA(value, now)
      case REGISTER_B:
        // Stopping the clock also turns the update interrupt off.
        this.registerB = (value & B_SET) === 0 ? value : value & ~B_UPDATE_ENABLE
        return
      case REGISTER_C:
      case REGISTER_D:
        return
      default:
        this.cmos[this.index] = value
    }
  }

  /** The reset pin: interrupts off. Time, calendar and memory run on a battery. */
  reset(now: number): void {
    this.settle(now)
    this.registerB &= ~(SOURCES | B_SQUARE_WAVE)
    this.flags = 0
  }

  /** Milliseconds since 1970 that the clock shows, whole seconds. */
  shownMillis(now: number): number {
    this.settle(now)
    return toSeconds(this.time) * 1000
  }

  /** Takes into account what happened up to `now`. */
  settle(now: number): void {
    const from = this.settledAt
    if (now <= from) return
    this.settledAt = now
    if (this.isDividerReset) {
      // Held in reset, the divider begins anew from wherever time is.
      this.since = now
      return
    }
    const updates = this.secondsSince(now) - this.secondsSince(from)
    const hertz = this.periodicHertz
    if (hertz > 0 && (updates > 0 || this.periods(now, hertz) > this.periods(from, hertz))) this.flags |= PERIODIC
    if (updates === 0) return
    if (!this.isSetting) {
      this.flags |= UPDATE
      if (this.secondsToAlarm() <= updates) this.flags |= ALARM
      this.time = fromSeconds(toSeconds(this.time) + updates)
    }
    this.since += updates * NANOS_PER_SECOND
  }

  /**
   * When the interrupt pin next goes high by itself; `Infinity` if it does not, or is high already: then nothing can be
   * missed until the guest reads register C.
   */
  nextInterrupt(now: number): number {
    this.settle(now)
    if (this.interrupt || this.isDividerReset) return Infinity
    const hertz = this.periodicHertz
    const periodic = (this.registerB & PERIODIC) !== 0 && hertz > 0
      ? this.since + Math.ceil((this.periods(now, hertz) + 1) * NANOS_PER_SECOND / hertz)
      : Infinity
    if (this.isSetting) return periodic
    const seconds = (this.registerB & UPDATE) !== 0
      ? 1
      : (this.registerB & ALARM) === 0
      ? Infinity
      : this.secondsToAlarm()
    return Math.min(periodic, this.since + seconds * NANOS_PER_SECOND)
  }

  private get isSetting(): boolean {
    return (this.registerB & B_SET) !== 0
  }

  private get isDividerReset(): boolean {
    return (this.registerA & A_DIVIDER_RESET) === A_DIVIDER_RESET
  }

  private get isBinary(): boolean {
    return (this.registerB & B_BINARY) !== 0
  }

  /** Periodic interrupts per second; 0 when none is selected. Rates 1 and 2 are those of 8 and 9. */
  private get periodicHertz(): number {
    const rate = this.registerA & A_RATE
    return rate === 0 ? 0 : rate <= 2 ? 512 >>> rate : 65_536 >>> rate
  }

  private isUpdateNear(now: number): boolean {
    return !this.isSetting && !this.isDividerReset && now - this.since >= NANOS_PER_SECOND - UPDATE_WARNING_NANOS
  }

  /** Whole seconds from {@link since} to `now`. */
  private secondsSince(now: number): number {
    return Math.floor((now - this.since) / NANOS_PER_SECOND)
  }

  /** Whole periods since the second of `now` began. */
  private periods(now: number, hertz: number): number {
    const intoSecond = now - this.since - this.secondsSince(now) * NANOS_PER_SECOND
    return Math.floor(intoSecond * hertz / NANOS_PER_SECOND)
  }

  private set(changes: Partial<CalendarTime>): void {
    this.time = { ...this.time, ...changes }
  }

  private writeRegisterA(value: number, now: number): void {
    const wasReset = this.isDividerReset
    this.registerA = value & ~A_UPDATE_IN_PROGRESS
    if (wasReset && !this.isDividerReset) this.since = now - HALF_SECOND
  }

  private encode(value: number): number {
    return this.isBinary ? low(value) : toBcd(value)
  }

  private decode(raw: number): number {
    return this.isBinary ? raw : fromBcd(raw)
  }

  private encodeHour(hour: number): number {
    if ((this.registerB & B_24_HOURS) !== 0) return this.encode(hour)
    return this.encode(hour % 12 || 12) | (hour >= 12 ? 0x80 : 0)
  }

  private decodeHour(raw: number): number {
    if ((this.registerB & B_24_HOURS) !== 0) return this.decode(raw)
    return this.decode(raw & 0x7f) % 12 + ((raw & 0x80) === 0 ? 0 : 12)
  }

  /** Updates until the alarm matches: 1 to 86,400, or `Infinity` when its fields name no time. */
  private secondsToAlarm(): number {
    const alarm = (index: number, decode: (raw: number) => number): number | undefined => {
      const raw = this.cmos[index]!
      return raw >= DONT_CARE ? undefined : decode(raw)
    }
    const second = alarm(SECOND_ALARM, (raw) => this.decode(raw))
    const minute = alarm(MINUTE_ALARM, (raw) => this.decode(raw))
    const hour = alarm(HOUR_ALARM, (raw) => this.decodeHour(raw))
    if ((second ?? 0) > 59 || (minute ?? 0) > 59 || (hour ?? 0) > 23) return Infinity
    const from = secondOfDay(this.time)
    // Each step jumps to where the largest field that does not match may match; the smaller ones begin anew there.
    let at = from + 1
    for (;;) {
      const atHour = Math.floor(at / 3600)
      const atMinute = Math.floor(at / 60)
      if (hour !== undefined && atHour % 24 !== hour) at = (atHour + 1) * 3600
      else if (minute !== undefined && atMinute % 60 !== minute) at = (atMinute + 1) * 60
      else if (second !== undefined && at % 60 !== second) at++
      else return at - from
    }
  }

  private describeMemory(memoryBytes: number): void {
    const base = Math.min(640, Math.floor(memoryBytes / KIB))
    const extended = Math.min(0xffff, Math.max(0, Math.floor((memoryBytes - MIB) / KIB)))
    const above16M = Math.min(0xffff, Math.max(0, Math.floor((memoryBytes - 16 * MIB) / (64 * KIB))))
    this.cmos[0x15] = low(base)
    this.cmos[0x16] = high(base)
    this.cmos[0x17] = this.cmos[0x30] = low(extended)
    this.cmos[0x18] = this.cmos[0x31] = high(extended)
    this.cmos[0x34] = low(above16M)
    this.cmos[0x35] = high(above16M)
  }
}
