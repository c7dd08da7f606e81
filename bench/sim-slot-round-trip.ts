/**
 * One trip of a request that is answered at once: from the guest's IN to the guest going on, on the simulated vCPU,
 * through page, dispatcher and an Effect. The loop around it is subtracted: it is measured with a register move in
 * place of the IN.
 */
import * as Effect from "effect/Effect"
import * as IoRange from "../src/domain/IoRange.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { body, difference, randomAddresses, start } from "./guest.ts"
import { compare, type Figure, measurement, type Sampler, stopwatch } from "./harness.ts"
import { plainTrip } from "./plainPage.ts"

const CLIENTS = 64
const PORTS = 16
const starts = Array.from({ length: CLIENTS }, (_, i) => 0x1000 + i * 0x100)
const addresses = randomAddresses(starts, PORTS)

const plain: Sampler = (() => {
  const trip = plainTrip(starts.map((first) => ({
    start: first,
    end: first + PORTS - 1,
    handler: (port) => port & 0xff
  })))
  return (iterations) => {
    let sum = 0
    const elapsed = stopwatch()
    for (let i = 0; i < iterations; i++) sum += trip(addresses[i % addresses.length]!)
    const nanos = elapsed()
    return sum < 0 ? NaN : nanos
  }
})()

export const figure: Figure = {
  metric: "sim.slot_round_trip_ns",
  unit: "ns",
  aim: { of: "value", atMost: 250 },
  run: () =>
    Effect.gen(function*() {
      const guest = yield* start({
        bodies: [body.in, body.move],
        addresses,
        prepare: (vm) =>
          Effect.forEach(starts, (first, i) =>
            vm.io.register({
              name: `client ${i}`,
              ranges: [IoRange.ports(first, first + PORTS - 1)],
              handle: (request) => Effect.sync(() => request._tag === "PortRead" ? request.port & 0xff : 0)
            }), { discard: true })
      })
      const result = yield* Effect.promise(() => compare(difference(guest, 0, 1), plain))
      return measurement(result, "plain JavaScript, same page protocol")
    }).pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer),
      Effect.provide(Simulated.layer),
      Effect.runPromise
    )
}
