/**
 * Date and time as a clock chip keeps them, and seconds since 1970. UTC, proleptic Gregorian.
 *
 * @since 0.1.0
 */

/**
 * What a guest can set one by one, so a combination need not exist (31 February). `month` is 1 to 12, `day` 1 to 31.
 *
 * @category models
 * @since 0.1.0
 */
export interface CalendarTime {
  readonly year: number
  readonly month: number
  readonly day: number
  readonly hour: number
  readonly minute: number
  readonly second: number
}

/**
 * Seconds since 1970. What does not exist is carried over: 31 February is 2 or 3 March.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toSeconds = (time: CalendarTime): number => {
  // Not Date.UTC: it takes years 0 to 99 for 1900 to 1999.
  const date = new Date(0)
  date.setUTCFullYear(time.year, time.month - 1, time.day)
  date.setUTCHours(time.hour, time.minute, time.second)
  return date.getTime() / 1000
}

/**
 * @category conversions
 * @since 0.1.0
 */
export const fromSeconds = (seconds: number): CalendarTime => {
  const date = new Date(seconds * 1000)
  return {
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    second: date.getUTCSeconds()
  }
}

/**
 * 1 for Sunday to 7 for Saturday, as PCs count.
 *
 * @category conversions
 * @since 0.1.0
 */
export const weekday = (time: CalendarTime): number => new Date(toSeconds(time) * 1000).getUTCDay() + 1
