/**
 * A VM on KVM made and unmade: the whole life of a scope, with 1 MiB of RAM. The peer is the bare ioctls for the same VM
 * in C. Times on the wall: when a VM goes, the kernel waits for other processors.
 */
import * as Effect from "effect/Effect"
import * as Kvm from "../src/layers/Kvm.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { compare, type Figure, measurement, type Sampler } from "./harness.ts"
import { whereKvm } from "./kvm/bareMachine.ts"
import { GUEST_MEMORY_BYTES } from "./kvm/guest.ts"
import { on } from "./kvm/ourMachine.ts"

export const figure: Figure = {
  metric: "kvm.vm_create_destroy_us",
  unit: "us",
  run: () =>
    whereKvm((bare) =>
      on(
        Kvm.layer,
        Effect.gen(function*() {
          const machines = yield* VirtualMachine.VirtualMachine
          const life = Effect.scoped(machines.create({ memoryBytes: GUEST_MEMORY_BYTES }))
          const lives: Sampler = async (iterations) => {
            const began = performance.now()
            await Effect.runPromise(Effect.repeat(life, { times: iterations - 1 }))
            return (performance.now() - began) * 1e6
          }
          const compared = yield* Effect.promise(() => compare(lives, bare.lives))
          return measurement(compared, "bare ioctls for the same VM in C", { scale: 1e-3 })
        })
      )
    )
}
