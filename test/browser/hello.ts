/** guests/hello on any hypervisor that is given: the same program in the page and in Node.js. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Upcall from "../../src/index.ts"
import * as Testing from "../../src/testing/index.ts"

/** What the guest printed, why it ended, and the hash of all its accesses. */
export interface HelloReport {
  readonly text: string
  readonly end: Upcall.EndReason.EndReason
  readonly hash: string
}

const hello = (image: Uint8Array) =>
  Effect.scoped(Effect.gen(function*() {
    const machines = yield* Upcall.VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: 1 << 20 })
    let text = ""
    const asked = Deferred.makeUnsafe<void>()
    const pc = yield* vm.attach(Upcall.StandardPc.make({
      scratch: {},
      uart: {
        onOutput: (byte) => {
          text += String.fromCharCode(byte)
          if (text.endsWith("type a byte: ")) Deferred.doneUnsafe(asked, Effect.void)
        }
      }
    }))
    const recording = yield* Testing.Trace.record(vm)
    yield* vm.attach(vm.machine.fork(Effect.andThen(Deferred.await(asked), pc.uart.send("u"))))
    yield* vm.load(yield* Upcall.FlatBinary.plan({ bytes: image, address: 0x1000, memoryBytes: vm.memoryBytes }))
    const running = yield* vm.start
    const end = yield* running.ended
    return { text, end, hash: yield* recording.hash }
  }))

export const runHelloOn = <E>(
  image: Uint8Array,
  hypervisor: Layer.Layer<Upcall.Hypervisor.Hypervisor | Upcall.Hypervisor.IrqLines, E>
): Promise<HelloReport> =>
  Effect.runPromise(
    Effect.provide(hello(image), Layer.provideMerge(Upcall.VirtualMachine.layer, hypervisor), { local: true })
  )
