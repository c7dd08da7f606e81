/**
 * Checking lengths of time that a program gives: intervals and deadlines, which must pass some time.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

/** What a length of time must be, for messages. */
export const INTERVAL = "a positive, finite duration"

/** A length of time in milliseconds; NaN when it is none. */
export const millisOf = (input: Duration.Input): number =>
  Option.match(Duration.fromInput(input), { onNone: () => NaN, onSome: Duration.toMillis })

export const isInterval = (millis: number): boolean => millis > 0 && millis < Infinity
