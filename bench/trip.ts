/**
 * One trip of a request, from the guest's IN to the guest going on, on the simulated vCPU: what the figures for handlers
 * that answer at once and that suspend share. The loop around it is subtracted: it is measured with a register move in
 * place of the IN.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as IoRange from "../src/domain/IoRange.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { body, difference, type Guest, randomAddresses, start } from "./guest.ts"
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

type Handle = (answer: number) => Effect.Effect<number>

/** A guest whose first loop makes trips, and whose second one is the loop alone. */
export const tripGuest = (handle: Handle) =>
  start({
    bodies: [body.in, body.move],
    addresses,
    prepare: (vm) =>
      Effect.forEach(
        ranges,
        (range, i) =>
          vm.io.register({
            name: `client ${i}`,
            ranges: [IoRange.ports(range.start, range.end)],
            handle: (request) => handle(request._tag === "PortRead" ? answerOf(request.port) : 0)
          }),
        { discard: true }
      )
  })

/** The time of a trip. */
export const tripOf = (guest: Guest): Sampler => difference(guest, 0, 1)

export const onSimulated = <A, E>(measuring: Effect.Effect<A, E, VirtualMachine.VirtualMachine | Scope.Scope>) =>
  measuring.pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer),
    Effect.provide(Simulated.layer),
    Effect.runPromise
  )

export const tripFigure = (options: {
  readonly metric: string
  readonly atMost: number
  readonly handle: Handle
  readonly peer: { readonly name: string; readonly sampler: Sampler }
}): Figure => ({
  metric: options.metric,
  unit: "ns",
  aim: { of: "value", atMost: options.atMost },
  run: () =>
    onSimulated(Effect.gen(function*() {
      const guest = yield* tripGuest(options.handle)
      const result = yield* Effect.promise(() => compare(tripOf(guest), options.peer.sampler))
      return measurement(result, options.peer.name)
    }))
})
