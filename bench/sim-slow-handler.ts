/** One trip of a request whose handler suspends once: it yields in guest time, and the VM's own scheduler resumes it. */
import * as Effect from "effect/Effect"
import { stopwatch } from "./harness.ts"
import { plainAsyncTrip } from "./plainPage.ts"
import { addresses, answerOf, ranges, tripFigure } from "./trip.ts"

const trip = plainAsyncTrip(ranges.map((range) => ({
  ...range,
  handler: (port: number) => Promise.resolve(answerOf(port))
})))

export const figure = tripFigure({
  metric: "sim.slow_handler_round_trip_ns",
  atMost: 1000,
  handle: (answer) => Effect.as(Effect.yieldNow, answer),
  peer: {
    name: "plain JavaScript, same page protocol, a promise",
    sampler: async (iterations) => {
      let sum = 0
      const elapsed = stopwatch()
      for (let i = 0; i < iterations; i++) sum += await trip(addresses[i % addresses.length]!)
      const nanos = elapsed()
      return sum < 0 ? NaN : nanos
    }
  }
})
