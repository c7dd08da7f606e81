/**
 * Creating a VM: capability check, page, hypercalls, RAM, and the finalizers in the order that the protocol wants
 * (the hypervisor forgets the VM first, then memory goes).
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import type { EndReason } from "../../domain/EndReason.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { Dispatcher } from "../dispatch/Dispatcher.ts"
import { inGuestTime } from "../dispatch/guestContext.ts"
import * as GuestMemory from "../GuestMemory.ts"
import { HypercallGate } from "../HypercallGate.ts"
import * as Hypercalls from "../Hypercalls.ts"
import { GuestEnds, type GuestTime, GuestTimes, type Hypervisor } from "../Hypervisor.ts"
import { Machine } from "../Machine.ts"
import { ServiceMemory } from "../ServiceMemory.ts"
import { Upcalls } from "../Upcalls.ts"
import type { VirtualMachineError } from "../VirtualMachineError.ts"
import type { CreatedVm, VmOptions } from "../Vm.ts"
import { checkOptions } from "./capability.ts"
import { makeHandles } from "./handles.ts"
import { makeMemory } from "./memory.ts"
import { refuse, refusedAt } from "./refusal.ts"
import { destroyWith, Undestroyed } from "./Undestroyed.ts"
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

  const build = Effect.fnUntraced(function*(options: Required<VmOptions>, root: Scope.Scope) {
    const { memoryBytes, name, vcpus } = options
    const core = new VmCore(name)
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

    const page = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } }).pipe(
      Scope.provide(memoryScope),
      Effect.mapError(refusedAt(name, "get its I/O request page"))
    )
    const servicePage = yield* Effect.fromResult(memory.page(page.address)).pipe(
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

    yield* hypercalls.setIoRequestBuffer(vmId, page.address).pipe(
      Effect.mapError(refusedAt(name, "set its I/O request page"))
    )
    const guestTime = guestTimes.of(vmId)
    const dispatcher = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const serving = new Dispatcher(servicePage, vcpus, (vcpu) => gate.notifyFinish(vmId, vcpu), guestTime)
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
    ).pipe(Scope.provide(vmScope))
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

    const resets = new Set<Effect.Effect<void>>()
    const machine = Machine.of({
      vmId,
      name,
      vcpus,
      memoryBytes,
      io: dispatcher.service,
      memory: GuestMemory.fromMap(vmMemory.guestMap, memory),
      time: guestTime ?? hostTime,
      fork: forkIn(guestTime ?? hostTime),
      onReset: (effect) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            resets.add(effect)
          }),
          () => Effect.sync(() => resets.delete(effect))
        ),
      end: (reason) => Effect.sync(() => end(reason))
    })
    return makeHandles({
      core,
      deviceScope,
      dispatcher,
      gate,
      hypercalls,
      machine,
      // The hypervisor was reset already: a device that fails must not keep the others, or the VM, half in the old life.
      resetDevices: Effect.suspend(() =>
        Effect.forEach([...resets], (reset) =>
          Effect.catchCause(
            reset,
            (cause) => Effect.logError(`a device of VM "${name}" failed to reset: ${Cause.pretty(cause)}`)
          ), { discard: true })
      ),
      vmMemory
    })
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

/** Forks in guest time: what the fiber sleeps is the guest's time, what it yields to is the guest's scheduler. */
const forkIn = (time: GuestTime) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.forkScoped(effect, { startImmediately: true }).pipe(
    Effect.updateContext((context: Context.Context<R | Scope.Scope>) => inGuestTime(context, time))
  )
