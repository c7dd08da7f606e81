/**
 * How long a program waits for a pause of an emulated guest that spins (`jmp $`), in real time. The peer is a turn of
 * the host's event loop, which every pause takes at least.
 */
import * as Effect from "effect/Effect"
import * as VcpuRegisters from "../src/domain/VcpuRegisters.ts"
import * as Emulated from "../src/layers/Emulated.ts"
import { Resume } from "../src/services/Hypervisor.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { type Figure, median } from "./harness.ts"

const ENTRY = 0x1000
const JUMP_TO_SELF = Uint8Array.of(0xeb, 0xfe)
const PAUSES = 101

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [result: A, millis: number], E, R> =>
  Effect.suspend(() => {
    const begin = performance.now()
    return Effect.map(effect, (result) => [result, performance.now() - begin] as const)
  })

export const figure: Figure = {
  metric: "emulated.pause_ms",
  unit: "ms",
  aim: { of: "value", atMost: 5 },
  run: () =>
    Effect.gen(function*() {
      yield* Resume
      const machines = yield* VirtualMachine.VirtualMachine
      const vm = yield* machines.create({ memoryBytes: 1 << 20 })
      yield* vm.memory.write(ENTRY, JUMP_TO_SELF)
      yield* vm.setRegisters(0, VcpuRegisters.flat32({ entry: ENTRY, stack: 0x8000 }))
      let running = yield* vm.start
      const pauses: Array<number> = []
      const turns: Array<number> = []
      for (let i = 0; i < PAUSES; i++) {
        yield* Effect.sleep("3 millis")
        const [paused, millis] = yield* timed(running.pause)
        pauses.push(millis)
        turns.push((yield* timed(Effect.yieldNow))[1])
        running = yield* paused.resume
      }
      return {
        value: median(pauses),
        peer: { name: "a turn of the event loop", value: median(turns) },
        samples: pauses,
        details: { slowest: Math.max(...pauses) }
      }
    }).pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer),
      Effect.provide(Emulated.layer),
      Effect.runPromise
    )
}
