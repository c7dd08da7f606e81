/**
 * Whether a trip takes longer with many clients: at random addresses over 256 clients against over 4, for MMIO (found by
 * binary search) and for ports (found in a table). The value is the worse of the two ratios.
 */
import * as Effect from "effect/Effect"
import * as IoRange from "../src/domain/IoRange.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { body, difference, randomAddresses, start } from "./guest.ts"
import { compare, type Comparison, type Figure, median } from "./harness.ts"

const MANY = 256
const FEW = 4
const BYTES = 16

interface Space {
  readonly access: ReadonlyArray<number>
  readonly first: number
  readonly apart: number
  readonly align: number
  readonly range: (start: number, end: number) => IoRange.IoRange
}

const spaces = {
  mmio: { access: body.load, first: 0xf000_0000, apart: 0x1_0000, align: 4, range: IoRange.mmio },
  ports: { access: body.in, first: 0x1000, apart: 0x40, align: 1, range: IoRange.ports }
} satisfies Record<string, Space>

const guestWith = ({ access, align, apart, first, range }: Space, clients: number) => {
  const starts = Array.from({ length: clients }, (_, i) => first + i * apart)
  return start({
    bodies: [access, body.move],
    addresses: randomAddresses(starts, BYTES, align),
    prepare: (vm) =>
      Effect.forEach(starts, (begin, i) =>
        vm.io.register({
          name: `client ${i}`,
          ranges: [range(begin, begin + BYTES - 1)],
          handle: (request) => Effect.sync(() => request.size)
        }), { discard: true })
  })
}

const measure = (space: Space): Promise<Comparison> =>
  Effect.gen(function*() {
    const many = yield* guestWith(space, MANY)
    const few = yield* guestWith(space, FEW)
    return yield* Effect.promise(() => compare(difference(many, 0, 1), difference(few, 0, 1)))
  }).pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer),
    Effect.provide(Simulated.layer),
    Effect.runPromise
  )

const ratioOf = ({ ours, theirs }: Comparison): number => median(ours) / median(theirs)
const trip = ({ ours, theirs }: Comparison) => ({ [MANY]: Math.round(median(ours)), [FEW]: Math.round(median(theirs)) })

export const figure: Figure = {
  metric: "dispatch.trip_256_over_4_ranges",
  unit: "ratio",
  aim: { of: "value", atMost: 1.5 },
  run: async () => {
    const mmio = await measure(spaces.mmio)
    const ports = await measure(spaces.ports)
    const worse = ratioOf(mmio) >= ratioOf(ports) ? mmio : ports
    return {
      value: ratioOf(worse),
      peer: { name: "4 clients", value: 1 },
      samples: worse.ours.map((sample, i) => sample / worse.theirs[i]!),
      details: { tripNs: { mmio: trip(mmio), ports: trip(ports) } }
    }
  }
}
