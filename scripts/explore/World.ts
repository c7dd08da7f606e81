/**
 * What every scenario is made of: the real services over a hypervisor whose vCPUs, upcalls and time are the explorer's,
 * and commands that check, as they return, what they promise.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { ports } from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import { HypervisorModel } from "../../src/layers/model/HypervisorModel.ts"
import { type ModelCapabilities, provide } from "../../src/layers/model/provide.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import type { IoDispatcherError } from "../../src/services/IoDispatcher.ts"
import * as Upcalls from "../../src/services/Upcalls.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { VirtualMachineError } from "../../src/services/VirtualMachineError.ts"
import type { CreatedVm, PausedVm, RunningVm } from "../../src/services/Vm.ts"
import { Exploration, step, stepWhen } from "../../src/testing/Explorer.ts"
import { profile } from "../../src/testing/TestMachine.ts"
import { Ledger, type Owner } from "./Ledger.ts"
import { type Access, Vcpus } from "./Vcpus.ts"
import * as WatchedMemory from "./WatchedMemory.ts"

export interface WorldOptions {
  /** The ports that each vCPU reads, in order; no port twice. */
  readonly programs: ReadonlyArray<ReadonlyArray<number>>
  /**
   * `AtOnce` (default): in the stack of the vCPU that trapped. `Late`: as a step of its own, merged with what came
   * meanwhile. `MayBeLost`: as `Late`, and each may also not come at all.
   */
  readonly upcalls?: "AtOnce" | "Late" | "MayBeLost"
  /** The vCPUs may also act between two accesses of the services to the page. */
  readonly isParallel?: boolean
  /** Whether the answer of a port is polled for; default: it never is. */
  readonly isPolled?: (port: number) => boolean
  /** Whether a vCPU may go on in the stack of who notifies it, as a test's may; default: no. */
  readonly runsOnNotify?: boolean
  /** Whether stopping the vCPUs is a step of its own; default: no. */
  readonly pauseTakesTime?: boolean
  readonly rescan?: Duration.Input
}

export interface ClientOptions {
  readonly name: string
  readonly first: number
  readonly last: number
  /** Takes a step between being asked and answering; without it, answers are there at once. */
  readonly isSlow?: boolean
  /** Takes a step to clean up when it is interrupted. */
  readonly cleansUp?: boolean
  readonly deadline?: Duration.Input
  /** What it does before it answers. */
  readonly meanwhile?: (access: Access) => Effect.Effect<unknown, IoDispatcherError>
}

export interface Client {
  /** Closes the client's scope: no handler of it may run afterwards. */
  readonly release: Effect.Effect<void>
  readonly move: (first: number, last: number) => Effect.Effect<void, IoDispatcherError>
}

/** A VM whose vCPUs run the world's programs. */
export interface Guest {
  readonly vm: CreatedVm
  readonly client: (options: ClientOptions) => Effect.Effect<Client, IoDispatcherError, Scope.Scope>
  readonly start: (vm: CreatedVm) => Effect.Effect<RunningVm, VirtualMachineError>
  readonly pause: (vm: RunningVm, deadline?: Duration.Input) => Effect.Effect<PausedVm, VirtualMachineError>
  readonly resume: (vm: PausedVm) => Effect.Effect<RunningVm, VirtualMachineError>
  readonly reset: (vm: PausedVm) => Effect.Effect<CreatedVm, VirtualMachineError>
  /** Closes the VM's scope. */
  readonly close: Effect.Effect<void>
  /** Waits until every vCPU is through with its program, and checks how each request ended. */
  readonly finish: Effect.Effect<void>
  /** Lets a vCPU make its next access now, in the caller's stack. */
  readonly act: (vcpu: number) => Effect.Effect<void>
  readonly ledger: Ledger
}

export interface World {
  readonly machines: VirtualMachine.VirtualMachine["Service"]
  readonly guest: Guest
  /** Whether the vCPUs of the VM that was created last run, for the hypervisor. */
  readonly isRunning: () => boolean
}

const MEMORY_BYTES = 4096

export const make = Effect.fnUntraced(function*(
  options: WorldOptions
): Effect.fn.Return<World, VirtualMachineError, Scope.Scope> {
  const exploration = yield* Exploration
  const ledger = new Ledger(exploration)
  const { context, engines, onTheWay } = yield* makeHypervisor(options, exploration, ledger)
  const services = yield* Layer.build(
    VirtualMachine.layerWith(options.rescan === undefined ? {} : { rescan: options.rescan })
  ).pipe(Effect.provideContext(Context.merge(yield* Effect.context<Scope.Scope>(), context)))
  const machines = Context.get(services, VirtualMachine.VirtualMachine)

  const scope = yield* Scope.fork(yield* Effect.scope)
  const vcpus = options.programs.length
  const vm = yield* machines.create({ memoryBytes: MEMORY_BYTES, vcpus }).pipe(Scope.provide(scope))
  const engine = engines[0]!
  yield* vm.io.observe({
    onRequest: (client, request) => ledger.dispatched(client, request),
    onComplete: (_client, request) => ledger.completed(request)
  })
  for (let vcpu = 0; vcpu < vcpus; vcpu++) yield* Effect.forkScoped(drive(exploration, engine, vcpu))

  const guest: Guest = {
    vm,
    ledger,
    client: (client) => register(vm, ledger, client),
    start: (created) =>
      Effect.suspend(() => {
        ledger.isPaused = false
        return created.start
      }),
    pause: (running, deadline) =>
      Effect.gen(function*() {
        const paused = yield* deadline === undefined ? running.pause : running.pauseWithin(deadline)
        ledger.isPaused = true
        ledger.nothingHeld("law 10: pause returned")
        for (const vcpu of engine.processing) ledger.violate(`law 10: pause returned, and slot ${vcpu} is PROCESSING`)
        return paused
      }),
    resume: (paused) =>
      Effect.suspend(() => {
        ledger.isPaused = false
        return Effect.provideContext(paused.resume, context)
      }),
    reset: (paused) => paused.reset,
    close: Effect.gen(function*() {
      ledger.isClosing = true
      yield* Scope.close(scope, Exit.void)
      ledger.isClosed = true
      if (!engine.isGone) ledger.violate("law 9: the VM's scope was closed, but the hypervisor has the VM still")
      ledger.nothingRuns(ledger.owners, "law 9: the VM's scope was closed")
    }),
    finish: Effect.gen(function*() {
      yield* stepWhen("all is done", () => engine.isDone && onTheWay.length === 0)
      ledger.settled(yield* vm.io.recentEvents)
    }),
    act: (vcpu) => Effect.sync(() => engine.act(vcpu))
  }
  return { machines, guest, isRunning: () => engines.at(-1)!.isRunning }
})

const makeHypervisor = Effect.fnUntraced(function*(
  options: WorldOptions,
  exploration: Exploration,
  ledger: Ledger
): Effect.fn.Return<
  {
    readonly context: Context.Context<Hypervisor | ModelCapabilities>
    readonly engines: ReadonlyArray<Vcpus>
    readonly onTheWay: ReadonlyArray<Upcalls.UpcallHint>
  },
  never,
  Scope.Scope
> {
  const clock = yield* Clock.Clock
  const scheduler = yield* Scheduler.Scheduler
  const engines: Array<Vcpus> = []
  const upcalls = Upcalls.make()
  const onTheWay: Array<Upcalls.UpcallHint> = []
  const delivery = options.upcalls ?? "AtOnce"
  const memory = WatchedMemory.make(
    (what) => {
      if (options.isParallel !== true) return
      for (const engine of engines) actBefore(exploration, engine, what)
    },
    (what) => ledger.violate(`law 9: a service ${what}, in memory that was given back`)
  )
  const model = new HypervisorModel({
    profile,
    memory: memory.hypervisor,
    maxVms: 1,
    configuredVcpus: 1,
    makeEngine: (engineOptions) => {
      const engine = new Vcpus(engineOptions, {
        clock,
        scheduler,
        exploration,
        // Another VM of the same id, later: its vCPUs do nothing.
        programs: engines.length === 0 ? options.programs : [],
        accesses: ledger.accesses,
        isPolled: options.isPolled ?? (() => false),
        pauseTakesTime: options.pauseTakesTime ?? false,
        runsOnNotify: options.runsOnNotify ?? false,
        raise: (hint) => {
          if (delivery === "AtOnce") upcalls.raise(hint)
          else onTheWay.push(hint)
        },
        onAnswer: (access, life, value) => ledger.answered(access, life, value)
      })
      engines.push(engine)
      return engine
    }
  })
  if (delivery !== "AtOnce") {
    yield* Effect.forkScoped(deliver(exploration, onTheWay, upcalls.raise, delivery === "MayBeLost"))
  }
  return { context: provide(profile, memory.services, upcalls.service, model), engines, onTheWay }
})

/** Registers a client in a scope of its own; its handler watches over the laws. */
const register = (
  vm: CreatedVm,
  ledger: Ledger,
  options: ClientOptions
): Effect.Effect<Client, IoDispatcherError, Scope.Scope> =>
  Effect.gen(function*() {
    const { deadline, first, last, name } = options
    const owner: Owner = {
      name,
      id: ledger.owners.length + 1,
      hasDeadline: deadline !== undefined,
      first,
      last,
      active: new Set(),
      isLeaving: false,
      isReleased: false
    }
    const scope = yield* Scope.fork(yield* Effect.scope)
    const io = yield* vm.io.register({
      name,
      ranges: [ports(first, last)],
      handle: (request) => handle(ledger, owner, options, request),
      ...(deadline === undefined ? {} : { deadline })
    }).pipe(Scope.provide(scope))
    ledger.owners.push(owner)
    return {
      move: (from, to) =>
        Effect.andThen(
          Effect.suspend(() => io.moveRange(ports(owner.first, owner.last), ports(from, to))),
          Effect.sync(() => {
            owner.first = from
            owner.last = to
          })
        ),
      release: Effect.gen(function*() {
        owner.isLeaving = true
        yield* Scope.close(scope, Exit.void)
        owner.isReleased = true
        ledger.nothingRuns([owner], `law 9: ${name} was released`)
        const counts = yield* vm.io.counts
        if (counts.some(({ client }) => client === name)) ledger.violate(`law 9: ${name} is released but registered`)
      })
    }
  })

const handle = (
  ledger: Ledger,
  owner: Owner,
  options: ClientOptions,
  request: IoRequest
): Effect.Effect<IoValue, IoDispatcherError> => {
  ledger.mayRun(owner)
  const access = ledger.accessOf(request)
  // Something is wrong with the request, which the ledger knows already.
  if (access === undefined) return Effect.succeed(0)
  const value = owner.id * 0x1_0000 + access.port
  if (options.isSlow !== true && options.meanwhile === undefined) {
    access.given = value
    return Effect.succeed(value)
  }
  owner.active.add(access)
  return Effect.gen(function*() {
    if (options.meanwhile !== undefined) yield* options.meanwhile(access)
    if (options.isSlow === true) yield* step(`${owner.name} answers vCPU ${access.vcpu}`)
    ledger.mayRun(owner)
    access.given = value
    return value
  }).pipe(
    Effect.onInterrupt(() => options.cleansUp === true ? step(`${owner.name} cleans up`) : Effect.void),
    Effect.ensuring(Effect.sync(() => owner.active.delete(access)))
  )
}

/** Lets a vCPU act whenever it can and is chosen. */
export const drive = (exploration: Exploration, engine: Vcpus, vcpu: number): Effect.Effect<never> =>
  Effect.forever(
    Effect.andThen(
      exploration.step(() => engine.nameAct(vcpu), () => engine.canAct(vcpu)),
      Effect.sync(() => engine.act(vcpu))
    ),
    { disableYield: true }
  )

/** Lets vCPUs act in the middle of what a service does. */
export const actBefore = (exploration: Exploration, engine: Vcpus, what: string): void => {
  for (let able = engine.able; able.length > 0; able = engine.able) {
    const chosen = exploration.choose(["", ...able.map((vcpu) => `${engine.nameAct(vcpu)} before a service ${what}`)])
    if (chosen === 0) return
    engine.act(able[chosen - 1]!)
  }
}

/** The line of upcalls: what is on the way arrives as one; for several that is an upcall without a hint. */
const deliver = (
  exploration: Exploration,
  onTheWay: Array<Upcalls.UpcallHint>,
  raise: Upcalls.UpcallHandler,
  mayLose: boolean
): Effect.Effect<never> =>
  Effect.forever(
    Effect.andThen(
      exploration.step(
        () =>
          onTheWay.length === 0 ? "an upcall" : `an upcall for vCPU ${onTheWay.map(({ vcpu }) => vcpu).join(" and ")}`,
        () => onTheWay.length > 0
      ),
      Effect.sync(() => {
        const hints = onTheWay.splice(0)
        const isLost = mayLose && exploration.choose(["", "that upcall gets lost"]) === 1
        if (!isLost) raise(hints.length === 1 ? hints[0] : undefined)
      })
    ),
    { disableYield: true }
  )
