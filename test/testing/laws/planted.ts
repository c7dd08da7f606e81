/** Hypervisors and virtual machines with one fault each, for laws to find. */
import { Effect, Layer, Scope } from "effect"
import { HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { SLOT_STATE_OFFSET, SlotStateCode } from "../../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../../src/domain/Limits.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import { HypercallGate } from "../../../src/services/HypercallGate.ts"
import type { Hypervisor } from "../../../src/services/Hypervisor.ts"
import type { IoClient } from "../../../src/services/IoDispatcher.ts"
import { ServiceMemory, type ServicePage } from "../../../src/services/ServiceMemory.ts"
import { Upcalls } from "../../../src/services/Upcalls.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import type { CreatedVm } from "../../../src/services/Vm.ts"
import { withRequestPages } from "../../../src/testing/laws/over.ts"

type Machines = Layer.Layer<VirtualMachine.VirtualMachine, never, Hypervisor>

/** Virtual machines whose service sees its pages through this. */
const withPages = (wrap: (page: ServicePage) => ServicePage): Machines =>
  VirtualMachine.layer.pipe(
    Layer.provide(Layer.effect(ServiceMemory, Effect.map(ServiceMemory, (memory) => withRequestPages(memory, wrap))))
  )

/** Virtual machines that come out of `create` as this. */
const withVms = (change: (vm: CreatedVm, scope: Scope.Scope) => CreatedVm): Machines =>
  Layer.effect(
    VirtualMachine.VirtualMachine,
    Effect.map(VirtualMachine.VirtualMachine, (machines) =>
      VirtualMachine.VirtualMachine.of({
        create: (options) =>
          Effect.gen(function*() {
            const scope = yield* Effect.scope
            return change(yield* machines.create(options), scope)
          })
      }))
  ).pipe(Layer.provide(VirtualMachine.layer))

const isCompletion = (offset: number, value: number): boolean =>
  offset % SLOT_BYTES === SLOT_STATE_OFFSET && value === SlotStateCode.Complete

/** Completes a request by way of FREE. */
export const completesByFree = withPages((page) => ({
  ...page,
  store32: (offset, value) => {
    if (isCompletion(offset, value)) page.store32(offset, SlotStateCode.Free)
    page.store32(offset, value)
  }
}))

/** Reads a request twice: for its checks, and for its use. */
export const fetchesTwice = withPages((page) => ({
  ...page,
  fetchRequest: (offset, words) => {
    page.fetchRequest(offset, words)
    page.fetchRequest(offset, words)
  }
}))

/** Says yes to a completion that it did not take. */
export const acceptsStrays = withVms((vm) => ({
  ...vm,
  requests: {
    ...vm.requests,
    pending: (vcpu) =>
      Effect.map(vm.requests.pending(vcpu), (pending) =>
        pending === undefined ? undefined : {
          ...pending,
          claim: Effect.map(pending.claim, (held) => ({
            ...held,
            complete: (value) =>
              Effect.catch(held.complete(value), () => Effect.succeed({ state: "Complete", vcpu: held.vcpu } as const))
          }))
        })
  }
}))

/** Keeps clients until the VM ends. */
export const keepsClients = withVms((vm, scope) => ({
  ...vm,
  io: { ...vm.io, register: (options) => Scope.provide(vm.io.register(options), scope) }
}))

/** Does not tell devices of a reset. */
export const keepsDevices = withVms((vm) => ({
  ...vm,
  machine: { ...vm.machine, onReset: () => Effect.void }
}))

/** Gives a range back before it knows whether the client can have the other. */
export const movesInTwoSteps = withVms((vm) => ({
  ...vm,
  io: {
    ...vm.io,
    register: (options) =>
      Effect.map(vm.io.register(options), (client): IoClient => ({
        ...client,
        moveRange: (from, to) => Effect.andThen(client.removeRange(from), client.addRange(to))
      }))
  }
}))

const on = <R, E>(change: Layer.Layer<R, E, Hypervisor>) => change.pipe(Layer.provideMerge(Simulated.layer))

/** Says that a VM is paused and lets it run. */
export const neverPauses = on(Layer.effect(
  HypercallGate,
  Effect.map(HypercallGate, (gate) =>
    HypercallGate.of({
      ...gate,
      call: (id, param1, param2) => id === HypercallId.PauseVm ? Effect.succeed(0) : gate.call(id, param1, param2)
    }))
))

/** Loses every third upcall that a handler should hear. */
export const losesUpcalls = on(Layer.effect(
  Upcalls,
  Effect.map(Upcalls, (upcalls) =>
    Upcalls.of({
      ...upcalls,
      register: (handler) =>
        Effect.suspend(() => {
          let count = 0
          return upcalls.register((hint) => {
            if (++count % 3 !== 0 || hint === undefined) handler(hint)
          })
        })
    }))
))
