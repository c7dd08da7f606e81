/**
 * Parts of the seam with a law, or who watches for one, in between: what stands above sees that version.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import type { Hypervisor } from "../../services/Hypervisor.ts"
import { ServiceMemory, type ServicePage } from "../../services/ServiceMemory.ts"
import * as VirtualMachine from "../../services/VirtualMachine.ts"

type Machines = Layer.Layer<VirtualMachine.VirtualMachine, never, Hypervisor>

/** How the VMs of a subject are made, for laws that put something between them and the hypervisor. */
export const MachinesOfSubject = Context.Reference<Machines>("upcall/testing/laws/MachinesOfSubject", {
  defaultValue: () => VirtualMachine.layer
})

/** Virtual machines over a hypervisor that the law made, for as long as the scope lives. */
export const machinesOver = <R>(
  hypervisor: Context.Context<R | Hypervisor>,
  machines?: Machines
): Effect.Effect<VirtualMachine.VirtualMachine["Service"], never, Scope.Scope> =>
  Effect.flatMap(MachinesOfSubject, (ofSubject) =>
    Layer.build(Layer.fresh(machines ?? ofSubject)).pipe(
      Effect.map((context) => Context.get(context, VirtualMachine.VirtualMachine)),
      Effect.provideContext(hypervisor)
    ))

/** The same gate, but for what becomes of NOTIFY_REQUEST_FINISH. */
export const withNotifyFinish = (
  gate: HypercallGate["Service"],
  notifyFinish: HypercallGate["Service"]["notifyFinish"]
): HypercallGate["Service"] =>
  HypercallGate.of({
    profile: gate.profile,
    call: (id, param1, param2) => gate.call(id, param1, param2),
    notifyFinish
  })

/** The same memory with each I/O request page as `wrap` makes it, which is told where the page is. */
export const withRequestPages = (
  memory: ServiceMemory["Service"],
  wrap: (page: ServicePage, address: number) => ServicePage
): ServiceMemory["Service"] => {
  const requestPages = new Set<number>()
  return ServiceMemory.of({
    read: (address, into) => memory.read(address, into),
    write: (address, from) => memory.write(address, from),
    allocate: (request) =>
      request.purpose._tag === "IoRequestPage"
        ? Effect.tap(memory.allocate(request), ({ address, bytes }) =>
          Effect.acquireRelease(
            Effect.sync(() => {
              for (let page = 0; page < bytes; page += PAGE_BYTES) requestPages.add(address + page)
            }),
            () =>
              Effect.sync(() => {
                for (let page = 0; page < bytes; page += PAGE_BYTES) requestPages.delete(address + page)
              })
          ))
        : memory.allocate(request),
    page: (address) =>
      requestPages.has(address)
        ? Result.map(memory.page(address), (page) => wrap(page, address))
        : memory.page(address)
  })
}
