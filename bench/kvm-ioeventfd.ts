/**
 * A write of a guest to a doorbell, which the kernel counts, and a program reads as a stream at the same time; inline.
 * The peer is the exit that it avoids: the same write to a port of a client. `bareNs` is the doorbell without any of us,
 * `loopNs` what all three have in them: the loop with a NOP in place of the write.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as IoRange from "../src/domain/IoRange.ts"
import * as Kvm from "../src/layers/Kvm.ts"
import type { IoDispatcher } from "../src/services/IoDispatcher.ts"
import { calibrate, compare, type Figure, measurement } from "./harness.ts"
import { type BareMachine, whereKvm } from "./kvm/bareMachine.ts"
import { BELL_PORT, type LoopName } from "./kvm/guest.ts"
import { device, loopGuest, on, start } from "./kvm/ourMachine.ts"

const SAMPLE_MS = 100

/** Hangs the doorbell and reads it; the result tells how often it rang so far. */
const hang = (io: IoDispatcher["Service"]) =>
  Effect.gen(function*() {
    const client = yield* io.register({
      name: "doorbell",
      ranges: [IoRange.ports(BELL_PORT, BELL_PORT)],
      handle: () => Effect.die("a write to the doorbell left the kernel")
    })
    let rings = 0n
    yield* client.doorbell({ space: "Port", address: BELL_PORT, bytes: 1 }).pipe(
      Stream.runForEach((count) =>
        Effect.sync(() => {
          rings += count
        })
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    return () => rings
  })

const nanosOf = async (machine: BareMachine, loop: LoopName): Promise<number> => {
  const sampler = machine.sampler(loop)
  const iterations = await calibrate(sampler, SAMPLE_MS)
  return Math.round(await sampler(iterations) / iterations)
}

export const figure: Figure = {
  metric: "kvm.ioeventfd_ns",
  unit: "ns",
  run: () =>
    whereKvm((bare) =>
      on(
        Kvm.layer,
        Effect.gen(function*() {
          const ours = yield* start({ clock: bare.threadNanos, handle: device() })
          const rings = yield* hang(ours.vm.io)
          const compared = yield* Effect.promise(() => compare(ours.sampler("bell"), ours.sampler("write")))
          if (rings() === 0n) return yield* Effect.die("nobody heard the doorbell")
          const machine = bare.open(loopGuest)
          machine.attachDoorbell(BELL_PORT)
          const bareNs = yield* Effect.promise(() => nanosOf(machine, "bell"))
          const loopNs = yield* Effect.promise(() => nanosOf(machine, "nothing"))
          machine.close()
          return measurement(compared, "a write that a client serves", { details: { bareNs, loopNs } })
        })
      )
    )
}
