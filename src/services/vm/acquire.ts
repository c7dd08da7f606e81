/**
 * What a VM is before anything serves it: its page of I/O requests, its id in the hypervisor, and the scopes by which
 * everything of it is given back in the order that the protocol wants.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import type { Hypercalls } from "../Hypercalls.ts"
import type { ServiceMemory } from "../ServiceMemory.ts"
import { refusedAt } from "./refusal.ts"
import { destroyWith, type Undestroyed } from "./Undestroyed.ts"
import type { VmCore } from "./VmCore.ts"

/** Has the hypervisor make a VM that sends its requests to a page of its own, until `root` closes. */
export const acquireVm = Effect.fnUntraced(function*(
  { core, hypercalls, memory, root, undestroyed, vcpus }: {
    readonly core: VmCore
    readonly hypercalls: Hypercalls["Service"]
    readonly memory: ServiceMemory["Service"]
    readonly root: Scope.Scope
    readonly undestroyed: Undestroyed
    readonly vcpus: number
  }
) {
  const name = core.name
  // Scopes close in reverse: VM first, then its handlers, its devices, and its memory.
  const memoryScope = yield* Scope.make()
  /** What the hypervisor calls the VM, while it has it. */
  let idInHypervisor: number | undefined
  yield* Scope.addFinalizerExit(root, (exit) => {
    // Guard: destroy-order
    if (idInHypervisor !== undefined) {
      return undestroyed.keep(idInHypervisor, name, Scope.close(memoryScope, exit))
    }
    return Scope.close(memoryScope, exit)
  })
  const deviceScope = yield* Scope.fork(root)
  const handlerScope = yield* Scope.fork(root)
  const vmScope = yield* Scope.fork(root)

  const { address } = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } }).pipe(
    Scope.provide(memoryScope),
    Effect.mapError(refusedAt(name, "get its I/O request page"))
  )
  const page = yield* Effect.fromResult(memory.page(address)).pipe(
    Effect.mapError(refusedAt(name, "get its I/O request page"))
  )

  // Guard: destroy-order
  const destroy = Effect.fnUntraced(function*(id: number) {
    yield* destroyWith(hypercalls, id)
    idInHypervisor = undefined
    core.recordEnd()
    core.endLife()
  }, Effect.catch((error) => Effect.logWarning(`VM "${name}" was not destroyed: ${error.message}`)))
  const { vmId } = yield* Effect.acquireRelease(
    Effect.tap(hypercalls.createVm({ cpuAffinity: (1n << BigInt(vcpus)) - 1n }), (vm) => {
      idInHypervisor = vm.vmId
      return undestroyed.reissued(vm.vmId)
    }),
    (vm) => core.close(destroy(vm.vmId))
  ).pipe(Scope.provide(vmScope), Effect.mapError(refusedAt(name, "be created")))

  yield* hypercalls.setIoRequestBuffer(vmId, address).pipe(
    Effect.mapError(refusedAt(name, "set its I/O request page"))
  )
  return { deviceScope, handlerScope, memoryScope, page, vmId, vmScope }
})
