/**
 * A process with a VM on KVM, for tests of what becomes of it when the process is ended: the guest counts, or spins with
 * interrupts off. Prints `running` when it does, and `closed` once everything was given back.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import * as Kvm from "../../../../src/layers/Kvm.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import { until } from "../../../support/machines.ts"
import * as CountingGuest from "./CountingGuest.ts"

const placement = process.argv[2] === "Worker" ? "Worker" : "Inline"
const spins = process.argv[3] === "spins"

const program = Effect.gen(function*() {
  yield* Effect.addFinalizer(() => Console.log("closed"))
  const context = yield* Layer.build(
    VirtualMachine.layer.pipe(Layer.provideMerge(Kvm.layerWith({ placement })))
  )
  yield* Effect.gen(function*() {
    const { device, vm } = yield* CountingGuest.make(2)
    const { ended } = yield* vm.start
    yield* until(() => device.isUnderLoad)
    // JMP to itself, from the next round on.
    if (spins) yield* vm.memory.write(CountingGuest.CODE, Uint8Array.of(0xeb, 0xfe))
    yield* Console.log("running")
    yield* ended
  }).pipe(Effect.provide(context))
})

NodeRuntime.runMain(Effect.scoped(program))
