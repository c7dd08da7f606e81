/**
 * One trip of a request, from the guest's IN to the guest going on, on the simulated vCPU: what the figures for handlers
 * that answer at once and that suspend share. The loop around it is subtracted: it is measured with a register move in
 * place of the IN.
 */
import * as Effect from "effect/Effect"
import * as IoRange from "../src/domain/IoRange.ts"
import type { IoRequest } from "../src/domain/IoRequest.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { body, difference, randomAddresses, start } from "./guest.ts"
import { compare, type Figure, measurement, type Sampler } from "./harness.ts"

const CLIENTS = 64
const PORTS = 16
const starts = Array.from({ length: CLIENTS }, (_, i) => 0x1000 + i * 0x100)

/** Random ports of all 64 clients, in the order in which guest and peer ask for them. */
export const addresses = randomAddresses(starts, PORTS)

/** The 64 ranges, for a peer's own table; ends inclusive. */
export const ranges = starts.map((first) => ({ start: first, end: first + PORTS - 1 }))

/** What every handler answers to a read. */
export const answerOf = (port: number): number => port & 0xff

export const tripFigure = (options: {
  readonly metric: string
  readonly atMost: number
  readonly handle: (answer: number) => Effect.Effect<number>
  readonly peer: { readonly name: string; readonly sampler: Sampler }
}): Figure => ({
  metric: options.metric,
  unit: "ns",
  aim: { of: "value", atMost: options.atMost },
  run: () =>
    Effect.gen(function*() {
      const handle = (request: IoRequest) => options.handle(request._tag === "PortRead" ? answerOf(request.port) : 0)
      const guest = yield* start({
        bodies: [body.in, body.move],
        addresses,
        prepare: (vm) =>
          Effect.forEach(
            ranges,
            (range, i) =>
              vm.io.register({ name: `client ${i}`, ranges: [IoRange.ports(range.start, range.end)], handle }),
            { discard: true }
          )
      })
      const result = yield* Effect.promise(() => compare(difference(guest, 0, 1), options.peer.sampler))
      return measurement(result, options.peer.name)
    }).pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer),
      Effect.provide(Simulated.layer),
      Effect.runPromise
    )
})
