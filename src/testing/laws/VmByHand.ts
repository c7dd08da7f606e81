/**
 * A VM whose guest and hypervisor are the law, as far as requests go: the law fills the slots of its page, raises the
 * upcalls and hears the notifications. Its vCPUs never start, so nobody else touches the page.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { GuestTimeline } from "../../services/GuestTimeline.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import type { Hypervisor } from "../../services/Hypervisor.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { ServiceMemory, type ServicePage } from "../../services/ServiceMemory.ts"
import * as Upcalls from "../../services/Upcalls.ts"
import type { VirtualMachineError } from "../../services/VirtualMachineError.ts"
import type { CreatedVm } from "../../services/Vm.ts"
import { machinesOver, withNotifyFinish, withRequestPages } from "./over.ts"
import { PageByHand } from "./PageByHand.ts"

export interface VmByHand {
  readonly vm: CreatedVm
  readonly page: PageByHand
  /** Lets the Service VM look at one slot, or at all. What it does there at once is done when this returns. */
  readonly raise: (slot: number | undefined) => void
  /** vCPUs of NOTIFY_REQUEST_FINISH so far, oldest first. */
  readonly notified: ReadonlyArray<number>
}

/** `between` stands between the Service VM and its page. */
export const make = (options: {
  readonly vcpus: number
  readonly between?: (page: ServicePage) => ServicePage
}): Effect.Effect<VmByHand, VirtualMachineError, Hypervisor | Scope.Scope> =>
  Effect.gen(function*() {
    const { between = (page) => page, vcpus } = options
    const hypervisor = yield* Effect.context<Hypervisor>()
    const memory = Context.get(hypervisor, ServiceMemory)
    const gate = Context.get(hypervisor, HypercallGate)
    const upcalls = Upcalls.make()
    const notified: Array<number> = []
    const standing = new GuestTimeline(0, yield* Scheduler.Scheduler)
    let address = 0
    const machines = yield* machinesOver(hypervisor.pipe(
      Context.add(Upcalls.Upcalls, upcalls.service),
      Context.add(
        ServiceMemory,
        withRequestPages(memory, (page, at) => {
          address = at
          return between(page)
        })
      ),
      Context.add(
        HypercallGate,
        withNotifyFinish(gate, (vmId, vcpu) => {
          notified.push(vcpu)
          return gate.notifyFinish(vmId, vcpu)
        })
      )
      // A rescan of the subject's would look at the page when the law did not say so.
    )).pipe(Effect.provideService(Clock.Clock, standing.clock))
    const vm = yield* machines.create({ vcpus, memoryBytes: 4096 })
    return {
      vm,
      page: new PageByHand(memory, address),
      raise: (slot) => upcalls.raise(slot === undefined ? undefined : { vmId: vm.id, vcpu: slot }),
      notified
    }
  })

/** A request that the keeper holds until the law replies. */
export interface Call {
  readonly request: IoRequest
  readonly reply: (value: IoValue) => void
}

/** Gives a VM a default client that answers nothing by itself: what it was asked so far, oldest first. */
export const keeper = (vm: CreatedVm): Effect.Effect<Array<Call>, IoDispatcherError, Scope.Scope> =>
  Effect.gen(function*() {
    const calls: Array<Call> = []
    yield* vm.io.registerDefault({
      name: "keeper",
      handle: (request) =>
        Effect.callback<IoValue>((resume) => {
          calls.push({ request, reply: (value) => resume(Effect.succeed(value)) })
        })
    })
    return calls
  })
