/**
 * How fast the simulated vCPU executes: a counted loop of arithmetic and memory accesses. The peer is the interpreter of
 * the v86 core on the very same guest code: both decode each instruction every time; ours is JavaScript, v86's is
 * WebAssembly compiled from Rust. What v86's compiler of guest code makes of it stands beside, in `jitMips`.
 */
import * as Effect from "effect/Effect"
import * as CpuModule from "../src/layers/emulated/CpuModule.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { bareGuest } from "./bareCpu.ts"
import { body, randomAddresses, start, WORK_INSTRUCTIONS } from "./guest.ts"
import { compare, type Figure, median } from "./harness.ts"

const addresses = randomAddresses([0], 0x1_0000)
const bodies = [body.work]

const mips = (nanosARound: number): number => WORK_INSTRUCTIONS * 1000 / nanosARound

export const figure: Figure = {
  metric: "sim.guest_mips",
  unit: "million instructions a second",
  run: () =>
    Effect.gen(function*() {
      const guest = yield* start({ bodies, addresses, prepare: () => Effect.void })
      const module = yield* Effect.promise(() => CpuModule.installed())
      const interpreter = bareGuest(module, { bodies, addresses, jit: false })
      const compiler = bareGuest(module, { bodies, addresses, jit: true })
      const { ours, theirs } = yield* Effect.promise(() => compare(guest.sampler(0), interpreter.sampler(0)))
      const jit = yield* Effect.promise(() => compare(compiler.sampler(0), interpreter.sampler(0)))
      return {
        value: mips(median(ours)),
        peer: { name: "v86 core, interpreting the same guest code", value: mips(median(theirs)) },
        best: { value: mips(Math.min(...ours)), peer: mips(Math.min(...theirs)) },
        samples: ours.map(mips),
        details: { jitMips: Math.round(mips(median(jit.ours))) }
      }
    }).pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer),
      Effect.provide(Simulated.layer),
      Effect.runPromise
    )
}
