/**
 * Creating a VM out of its parts, each given back in the order that the protocol wants (the hypervisor forgets the VM
 * first, then memory goes), and finding the VM that an upcall is for.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import type { EndReason } from "../../domain/EndReason.ts"
import { Dispatcher } from "../dispatch/Dispatcher.ts"
import * as GuestMemory from "../GuestMemory.ts"
import { HypercallGate } from "../HypercallGate.ts"
import * as Hypercalls from "../Hypercalls.ts"
import { GuestEnds, type GuestTime, GuestTimes, type Hypervisor } from "../Hypervisor.ts"
import { ServiceMemory, type ServicePage } from "../ServiceMemory.ts"
import { Upcalls } from "../Upcalls.ts"
import type { VirtualMachineError } from "../VirtualMachineError.ts"
import type { CreatedVm, VmOptions } from "../Vm.ts"
import { acquireVm } from "./acquire.ts"
import { checkOptions } from "./capability.ts"
import { makeHandles } from "./handles.ts"
import { makeMachine } from "./machine.ts"
import { makeMemory } from "./memory.ts"
import { refuse } from "./refusal.ts"
import { Undestroyed } from "./Undestroyed.ts"
import { VmCore } from "./VmCore.ts"
import { wholly } from "./wholly.ts"

type Create = (options: VmOptions) => Effect.Effect<CreatedVm, VirtualMachineError, Scope.Scope>

/** `rescanMs` is how often every page is looked at without an upcall; without it, never. */
export const makeCreateWith = Effect.fnUntraced(function*(
  rescanMs: number | undefined
): Effect.fn.Return<Create, never, Hypervisor | Scope.Scope> {
  const gate = yield* HypercallGate
  const memory = yield* ServiceMemory
  const upcalls = yield* Upcalls
  const guestTimes = yield* GuestTimes
  const guestEnds = yield* GuestEnds
  const hypercalls = yield* Hypercalls.make
  const hostTime: GuestTime = { clock: yield* Clock.Clock, scheduler: yield* Scheduler.Scheduler }
  const host = hostTime.scheduler.makeDispatcher()
  const dispatchers = new Map<number, Dispatcher>()
  const roots = new Set<Scope.Closeable>()
  const undestroyed = new Undestroyed(hypercalls)
  let created = 0

  yield* upcalls.register((hint) => {
    if (hint !== undefined) dispatchers.get(hint.vmId)?.serve(hint.vcpu)
    else serveAll([...dispatchers.values()])
  })

  if (rescanMs !== undefined) {
    yield* Effect.sleep(rescanMs).pipe(
      Effect.andThen(Effect.sync(() => serveAll([...dispatchers.values()]))),
      // A page that cannot be looked at now may be at the next interval.
      Effect.catchCause((cause) =>
        Effect.logError(`a page of I/O requests could not be looked at: ${Cause.pretty(cause)}`)
      ),
      Effect.forever,
      Effect.forkScoped({ startImmediately: true })
    )
  }

  // A VM that outlives what serves its requests would wait for ever at its first one.
  yield* Effect.addFinalizer((exit) =>
    Effect.andThen(
      Effect.forEach([...roots], (root) => Scope.close(root, exit), { discard: true }),
      undestroyed.retry
    )
  )

  /** Serves the requests of a VM, until the scope closes. */
  const serve = ({ core, guestTime, page, vcpus, vmId }: {
    readonly core: VmCore
    readonly guestTime: GuestTime | undefined
    readonly page: ServicePage
    readonly vcpus: number
    readonly vmId: number
  }) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const notifyFinish = (vcpu: number) => gate.notifyFinish(vmId, vcpu)
        const serving = new Dispatcher(page, vcpus, notifyFinish, guestTime, gate.profile.dispatchRole, vmId)
        dispatchers.set(vmId, serving)
        return serving
      }),
      // Before the VM is destroyed: no vCPU is left waiting, and every handler is told to end.
      (serving) =>
        // First of all what is held: a pause under way waits for it, and a close waits for that pause.
        Effect.andThen(
          serving.abandonAll,
          core.close(
            Effect.ignore(hypercalls.pauseVm(vmId)).pipe(
              Effect.andThen(serving.abandonAll),
              Effect.andThen(Effect.sync(() => {
                dispatchers.delete(vmId)
                serving.page.shut()
              }))
            )
          )
        )
    )

  const build = Effect.fnUntraced(function*(options: Required<VmOptions>, root: Scope.Scope) {
    const { memoryBytes, name, vcpus } = options
    const core = new VmCore(name)
    const { deviceScope, handlerScope, memoryScope, page, vmId, vmScope } = yield* acquireVm({
      core,
      hypercalls,
      memory,
      root,
      undestroyed,
      vcpus
    })
    const guestTime = guestTimes.of(vmId)
    const dispatcher = yield* Scope.provide(serve({ core, guestTime, page, vcpus, vmId }), vmScope)
    // Once the VM is destroyed its time runs out: a handler that ends with a sleep of guest time can end then.
    yield* Scope.addFinalizer(handlerScope, dispatcher.handlersEnded)

    const vmMemory = makeMemory({ hypercalls, memory, memoryScope, name, profile: gate.profile, vmId })
    yield* vmMemory.map({ guestAddress: 0, bytes: memoryBytes })
    // A handle that outlives its VM must not reach memory that is another VM's by then.
    yield* Scope.addFinalizer(memoryScope, Effect.sync(() => vmMemory.guestMap.clear()))

    // In a turn of its own: whoever waits may close the VM, and must not do so inside the handler that told.
    const end = (reason: EndReason): void => {
      if (core.endReason !== undefined) return
      core.endReason = reason
      const ended = core.ended
      host.scheduleTask(() => Deferred.doneUnsafe(ended, Exit.succeed(reason)), 0)
    }
    yield* Scope.addFinalizer(vmScope, Effect.sync(guestEnds.register(vmId, end)))

    const { machine, resetDevices } = makeMachine({
      vmId,
      name,
      vcpus,
      memoryBytes,
      io: dispatcher.service,
      memory: GuestMemory.fromMap(vmMemory.guestMap, memory),
      time: guestTime ?? hostTime,
      end: (reason) => Effect.sync(() => end(reason))
    })
    return makeHandles({ core, deviceScope, dispatcher, gate, hypercalls, machine, resetDevices, vmMemory })
  })

  return Effect.fnUntraced(function*(wanted: VmOptions) {
    const options = { name: wanted.name ?? `vm${created}`, vcpus: wanted.vcpus ?? 1, memoryBytes: wanted.memoryBytes }
    const problem = checkOptions(gate.profile, options)
    if (problem !== undefined) return yield* refuse(problem)
    created++
    yield* undestroyed.retry
    // A VM that could not be made wholly is unmade at once, not when its owner's scope closes.
    const root = yield* Scope.fork(yield* Effect.scope)
    yield* Scope.addFinalizer(root, Effect.sync(() => roots.delete(root)))
    roots.add(root)
    return yield* wholly(root)(build(options, root))
  })
})

export const makeCreate = makeCreateWith(undefined)

/** Looks at every page. One that cannot be looked at keeps no other VM waiting. */
const serveAll = (dispatchers: ReadonlyArray<Dispatcher>): void => {
  for (const [i, dispatcher] of dispatchers.entries()) {
    // Guard: acrn-kernel-247
    try {
      dispatcher.serve(undefined)
    } catch (defect) {
      serveAll(dispatchers.slice(i + 1))
      throw defect
    }
  }
}
