/** Runs on the real driver: a VM that runs until a signal ends the program. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Acrn from "../../../../src/layers/Acrn.ts"
import * as FlatBinary from "../../../../src/layers/images/FlatBinary.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"

// again: jmp again
const SPINS = new Uint8Array([0xeb, 0xfe])

const program = Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 1 << 20 })
  yield* vm.load(yield* FlatBinary.plan({ bytes: SPINS, address: 0x1000, memoryBytes: vm.memoryBytes }))
  yield* vm.start
  console.log("running")
  yield* Effect.never
})

NodeRuntime.runMain(
  program.pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(Acrn.layer))
)
