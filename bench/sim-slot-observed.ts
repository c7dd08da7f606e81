/**
 * The trip of `sim.slot_round_trip_ns` with one reader of `io.transitions`, who takes every step of every slot. The peer
 * is the same trip with none: what observing costs is the ratio. The reader runs on the measured thread and is in the
 * value.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { compare, type Figure, measurement } from "./harness.ts"
import { onSimulated, tripGuest, tripOf } from "./trip.ts"

export const figure: Figure = {
  metric: "sim.slot_round_trip_observed_ns",
  unit: "ns",
  aim: { of: "ratio", atMost: 1.5 },
  run: () =>
    onSimulated(Effect.gen(function*() {
      const handle = (answer: number) => Effect.sync(() => answer)
      const observed = yield* tripGuest(handle)
      const unobserved = yield* tripGuest(handle)
      let steps = 0
      yield* Effect.forkScoped(
        Stream.runForEachArray(observed.vm.io.transitions, (batch) =>
          Effect.sync(() => {
            steps += batch.length
          })),
        { startImmediately: true }
      )
      const result = yield* Effect.promise(() => compare(tripOf(observed), tripOf(unobserved)))
      const lost = yield* observed.vm.io.transitionsLost
      return measurement(result, "the same trip, no reader", { details: { steps, lost } })
    }))
}
