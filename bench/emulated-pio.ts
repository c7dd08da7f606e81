/**
 * One port access on the emulated CPU, through page, dispatcher and an Effect that is there at once: a loop of OUT and
 * IN, whole, halved. The peer is the bare core with plain functions, same guest code.
 */
import * as Effect from "effect/Effect"
import * as IoRange from "../src/domain/IoRange.ts"
import * as Emulated from "../src/layers/Emulated.ts"
import * as CpuModule from "../src/layers/emulated/CpuModule.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { bareGuest } from "./bareCpu.ts"
import { body, randomAddresses, start } from "./guest.ts"
import { compare, type Figure, measurement } from "./harness.ts"

const CLIENTS = 64
const PORTS = 16
const starts = Array.from({ length: CLIENTS }, (_, i) => 0x1000 + i * 0x100)
const addresses = randomAddresses(starts, PORTS)
const bodies = [body.outIn]

export const figure: Figure = {
  metric: "emulated.pio_ns",
  unit: "ns",
  aim: { of: "value", atMost: 500 },
  run: () =>
    Effect.gen(function*() {
      const registers = new Uint8Array(0x1_0000)
      const guest = yield* start({
        bodies,
        addresses,
        prepare: (vm) =>
          Effect.forEach(starts, (first, i) =>
            vm.io.register({
              name: `client ${i}`,
              ranges: [IoRange.ports(first, first + PORTS - 1)],
              handle: (request) =>
                Effect.sync(() => {
                  if (request._tag === "PortRead") return registers[request.port]
                  if (request._tag === "PortWrite") registers[request.port] = request.value
                  return undefined
                })
            }), { discard: true })
      })
      const plainRegisters = new Uint8Array(0x1_0000)
      const bare = bareGuest(yield* Effect.promise(() => CpuModule.installed()), {
        bodies,
        addresses,
        jit: true,
        onPortRead: (port) => plainRegisters[port]!,
        onPortWrite: (port, value) => {
          plainRegisters[port] = value
        }
      })
      const result = yield* Effect.promise(() => compare(guest.sampler(0), bare.sampler(0)))
      bare.dispose()
      return measurement(result, "bare v86 core with plain handlers", { scale: 1 / 2 })
    }).pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer),
      Effect.provide(Emulated.layer),
      Effect.runPromise
    )
}
