/** Hypervisors and virtual machines that serve requests with one fault each, for laws to find. */
import { Effect, Layer } from "effect"
import { SLOT_STATE_OFFSET } from "../../../src/domain/abi/IoRequestSlot.ts"
import * as IoRequest from "../../../src/domain/IoRequest.ts"
import { SLOT_BYTES } from "../../../src/domain/Limits.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../../src/services/Hypervisor.ts"
import type { RequestHandler } from "../../../src/services/IoDispatcher.ts"
import { ServiceMemory, type ServicePage } from "../../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import { withRequestPages } from "../../../src/testing/laws/over.ts"

const POLLING = 1
const ADDRESS = 18
const SIZE = 20

/** Simulated, whose pages every service sees through this. */
const withPages = (wrap: (page: ServicePage) => ServicePage): Layer.Layer<Hypervisor> =>
  Layer.effect(ServiceMemory, Effect.map(ServiceMemory, (memory) => withRequestPages(memory, wrap))).pipe(
    Layer.provideMerge(Simulated.layer)
  )

/** A service that takes words of a request for others than they are. */
const misreading = (misread: (words: Int32Array) => void): Layer.Layer<Hypervisor> =>
  withPages((page) => ({
    ...page,
    fetchRequest: (offset, words) => {
      page.fetchRequest(offset, words)
      misread(words)
    }
  }))

export const dropsHighAddresses = misreading((words) => {
  words[ADDRESS + 1] = 0
})

export const looksAtFirstBytes = misreading((words) => {
  words[SIZE] = 1
})

export const ignoresPolling = misreading((words) => {
  words[POLLING] = 0
})

/** A foreign state ends the scan, and so whoever comes behind it waits. */
export const throwsAtForeignStates = withPages((page) => ({
  ...page,
  load32: (offset) => {
    const word = page.load32(offset)
    if (offset % SLOT_BYTES === SLOT_STATE_OFFSET && (word < 0 || word > 3)) throw new Error(`state ${word}`)
    return word
  }
}))

/** Virtual machines, the first one numbered 0, with each client's handler as this makes it. */
const withHandlers = (
  change: (handle: RequestHandler, vm: number) => RequestHandler
): Layer.Layer<VirtualMachine.VirtualMachine, never, Hypervisor> =>
  Layer.effect(
    VirtualMachine.VirtualMachine,
    Effect.map(VirtualMachine.VirtualMachine, (machines) => {
      let created = 0
      return VirtualMachine.VirtualMachine.of({
        create: (options) =>
          Effect.map(machines.create(options), (vm) => {
            const number = created++
            const changed = (handle: unknown) => change(handle as RequestHandler, number) as never
            return {
              ...vm,
              io: {
                ...vm.io,
                register: (client) => vm.io.register({ ...client, handle: changed(client.handle) }),
                registerDefault: (client) => vm.io.registerDefault({ ...client, handle: changed(client.handle) })
              }
            }
          })
      })
    })
  ).pipe(Layer.provide(VirtualMachine.layer))

export const answersFailuresWithZero = withHandlers((handle) => (request) =>
  Effect.catchCause(Effect.suspend(() => handle(request)), () => Effect.succeed(0))
)

/** Takes a request that is the same as the one before it for a repetition, and does not ask again. */
export const asksOnce = withHandlers((handle) => {
  let last = ""
  return (request) => {
    const asked = IoRequest.format(request)
    if (asked === last) return Effect.succeed(0)
    last = asked
    return handle(request)
  }
})

export const answersAnewInEachVm = withHandlers((handle, vm) => (request) =>
  vm % 2 === 0 ? handle(request) : Effect.map(handle(request), (value) => Number(value) + 1)
)
