/**
 * A guest whose one vCPU writes to a port, again and again, and a client that holds its write until a sample is asked
 * for. The same on each hypervisor layer.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as IoRange from "../../src/domain/IoRange.ts"
import * as FlatBinary from "../../src/layers/images/FlatBinary.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import type { Sampler } from "../harness.ts"

const PORT = 0x500
const CODE = 0x1000

// xor dx, dx; mov dh, 5; again: out dx, al; jmp again. Every byte means the same in 16-bit and in 32-bit code.
const WRITES = new Uint8Array([0x31, 0xd2, 0xb6, PORT >> 8, 0xee, 0xeb, 0xfd])

/** Samples of whole requests, from one handler's call to the next. It goes with the scope. */
export const makeHeldGuest = Effect.gen(function*() {
  const machines = yield* VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 1 << 20 })
  let left = 0
  let began = 0
  let done: (nanos: number) => void = () => undefined
  let go: () => void = () => undefined
  const held = yield* Deferred.make<void>()
  yield* vm.io.register({
    name: "held",
    ranges: [IoRange.ports(PORT, PORT)],
    handle: () => {
      if (--left > 0) return Effect.undefined
      if (left === 0) done((performance.now() - began) * 1e6)
      return Effect.callback<undefined>((resume) => {
        go = () => resume(Effect.undefined)
        Deferred.doneUnsafe(held, Effect.void)
      })
    }
  })
  yield* vm.load(yield* FlatBinary.plan({ bytes: WRITES, address: CODE, memoryBytes: vm.memoryBytes }))
  yield* vm.start
  yield* Deferred.await(held)

  const sampler: Sampler = (iterations) =>
    new Promise((resolve) => {
      done = resolve
      left = iterations
      began = performance.now()
      go()
    })
  return sampler
})
