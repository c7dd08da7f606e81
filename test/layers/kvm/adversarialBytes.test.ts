/** Any bytes at all as a guest's code: it ends with a reason or goes on, and nothing else suffers. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Kvm from "../../../src/layers/Kvm.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import * as Generator from "../../../src/testing/Generator.ts"
import { problem, skipped } from "./capabilities/guests.ts"
import type { Mode } from "./support/adversaries.ts"
import { ordeal } from "./support/ordeal.ts"

const RUNS = 60

/** What instructions begin with that do more than compute. */
const OPCODES = [
  [0x0f, 0x01],
  [0x0f, 0x00],
  [0x0f, 0x20],
  [0x0f, 0x22],
  [0x0f, 0x23],
  [0x0f, 0x30],
  [0x0f, 0x32],
  [0x0f, 0xa2],
  [0x0f, 0xae],
  [0x0f, 0xc7],
  [0xf0],
  [0xf2],
  [0xf3],
  [0x66],
  [0x67],
  [0x48],
  [0x6c],
  [0x6d],
  [0x6e],
  [0x6f],
  [0xa5],
  [0xab],
  [0xcd],
  [0xcf],
  [0xe9],
  [0xea],
  [0x9a],
  [0x9d],
  [0x8e],
  [0x89],
  [0x8b],
  [0xc7],
  [0xe4],
  [0xe6],
  [0xec],
  [0xed],
  [0xee],
  [0xef],
  [0xf4],
  [0xfb],
  [0xdf],
  [0xeb, 0xfe]
] as const

const byte = Generator.integer(0, 0xff)
const piece: Generator.Generator<ReadonlyArray<number>> = Generator.oneOf(
  Generator.map(byte, (value) => [value]),
  Generator.map(byte, (value) => [value]),
  Generator.elementOf<ReadonlyArray<number>>(OPCODES)
)

/** Small numbers, ports, addresses of RAM and of devices. */
const word = Generator.map(
  Generator.all([Generator.bits(32), Generator.integer(0, 31)]),
  ([value, shift]) => value >> BigInt(shift)
)

const guest = Generator.all({
  mode: Generator.elementOf<Mode>(["Real", "Protected32", "Long64"]),
  code: Generator.map(Generator.array(piece, { minLength: 1, maxLength: 150 }), (pieces) => pieces.flat()),
  vcpus: Generator.integer(1, 2),
  gprs: Generator.all({ rax: word, rcx: word, rdx: word, rbx: word, rsi: word, rdi: word, rbp: word })
})

for (const placement of ["Inline", "Worker"] as const) {
  for (const interruptController of ["Kernel", "None"] as const) {
    describe.skipIf(problem !== undefined)(
      `random code, ${placement}, interrupt controller ${interruptController}${skipped}`,
      () => {
        const machines = VirtualMachine.layer.pipe(
          Layer.provideMerge(Kvm.layerWith({ placement, interruptController }))
        )
        layer(machines, { excludeTestServices: true })((it) => {
          it.effect.prop(
            "ends with a reason, or runs on and can be paused",
            [guest],
            ([{ code, gprs, mode, vcpus }]) =>
              Effect.gen(function*() {
                const adversary = { name: "random code", mode, code, vcpus, fates: [] }
                const { fate, problems } = yield* ordeal(adversary, { turns: 3, gprs })
                assert.deepStrictEqual(problems, [])
                // A fault is the layer's own.
                assert.notInclude(["Fault", "Stopped", "Exited"], fate)
              }),
            { arbitrary: { runs: RUNS } }
          )
        })
      }
    )
  }
}
