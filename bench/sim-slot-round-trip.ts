/** One trip of a request that is answered at once, by an `Effect.sync`. */
import * as Effect from "effect/Effect"
import { stopwatch } from "./harness.ts"
import { plainTrip } from "./plainPage.ts"
import { addresses, answerOf, ranges, tripFigure } from "./trip.ts"

const trip = plainTrip(ranges.map((range) => ({ ...range, handler: answerOf })))

export const figure = tripFigure({
  metric: "sim.slot_round_trip_ns",
  atMost: 250,
  handle: (answer) => Effect.sync(() => answer),
  peer: {
    name: "plain JavaScript, same page protocol",
    sampler: (iterations) => {
      let sum = 0
      const elapsed = stopwatch()
      for (let i = 0; i < iterations; i++) sum += trip(addresses[i % addresses.length]!)
      const nanos = elapsed()
      return sum < 0 ? NaN : nanos
    }
  }
})
