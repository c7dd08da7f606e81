/**
 * The dispatcher's machinery: from a look at a slot to its completion. What it does per request is plain synchronous
 * code; Effect comes in with the handler.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Scheduler from "effect/Scheduler"
import * as Stream from "effect/Stream"
import type { VcpuId } from "../../domain/Address.ts"
import type { DispatchEvent } from "../../domain/DispatchEvent.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import type { RequestTransition } from "../../domain/RequestState.ts"
import * as SlotWords from "../../domain/SlotWords.ts"
import type { GuestTime } from "../Hypervisor.ts"
import {
  type IoClient,
  type IoClientOptions,
  IoDispatcher,
  IoDispatcherError,
  type RequestObserver
} from "../IoDispatcher.ts"
import type { ServicePage } from "../ServiceMemory.ts"
import type { Client } from "./Client.ts"
import { ConfigAddress } from "./ConfigAddress.ts"
import { RequestPage } from "./RequestPage.ts"
import { Routes } from "./Routes.ts"

interface InFlight {
  readonly client: Client
  readonly request: IoRequest
  readonly epoch: number
  readonly fiber: Fiber.Fiber<IoValue, unknown>
}

/** Whether a handler's Effect is its result already. `isExit` alone is slow for one that is not: most handlers'. */
const isSettled = (effect: Effect.Effect<IoValue, unknown>): effect is Exit.Exit<IoValue, unknown> => {
  const tag = (effect as { readonly _tag?: unknown })._tag
  return (tag === "Success" || tag === "Failure") && Exit.isExit(effect)
}

const RECENT_EVENTS = 256
const DEFAULT_DEADLINE = Duration.seconds(1)

export class Dispatcher {
  readonly page: RequestPage
  readonly routes = new Routes()
  readonly configAddress = new ConfigAddress()
  unhandled = 0
  private readonly guestTime: GuestTime | undefined
  private readonly clients: Array<Client> = []
  private readonly inFlight: Array<InFlight | undefined>
  private defaultClient: Client | undefined
  private isDraining = false
  private waiters: Array<() => void> = []
  private observers: ReadonlyArray<RequestObserver> = []
  private recent: Array<DispatchEvent> = []
  private listeners: ReadonlyArray<(event: DispatchEvent) => void> = []

  constructor(
    page: ServicePage,
    vcpus: number,
    notifyFinish: (vcpu: number) => number,
    guestTime: GuestTime | undefined
  ) {
    this.page = new RequestPage(page, vcpus, (vcpu) => {
      const result = notifyFinish(vcpu)
      if (result < 0) this.report({ _tag: "NotifyRefused", vcpu: vcpu as VcpuId, result })
    })
    this.guestTime = guestTime
    this.inFlight = Array.from({ length: vcpus }, () => undefined)
  }

  /** Looks at one slot, or at all; what an upcall asks for. */
  serve(vcpu: number | undefined): void {
    if (vcpu === undefined) {
      for (let each = 0; each < this.page.vcpus; each++) this.serveSlot(each)
    } else if (vcpu >= 0 && vcpu < this.page.vcpus) {
      this.serveSlot(vcpu)
    }
  }

  private serveSlot(vcpu: number): void {
    if (this.isDraining) return
    const page = this.page
    switch (page.look(vcpu)) {
      case "NotPending":
        return
      case "Foreign":
        return this.report({ _tag: "ForeignStep", vcpu: vcpu as VcpuId, problem: page.problem })
      case "Malformed": {
        const problem = page.problem
        page.answer(vcpu, undefined)
        return this.report({ _tag: "Malformed", vcpu: vcpu as VcpuId, problem })
      }
      case "Request":
        return this.dispatch(vcpu, page.request!)
    }
  }

  private dispatch(vcpu: number, read: IoRequest): void {
    let request = read
    if (request._tag === "PortRead" || request._tag === "PortWrite") {
      const folded = this.configAddress.fold(request)
      if (typeof folded === "number") return this.answerConfigAddress(vcpu, request, folded)
      request = folded
    }
    const client = this.routes.find(request) ?? this.defaultClient
    if (client === undefined) return this.answerUnhandled(vcpu, request)
    client.requests++
    if (this.observers.length > 0) this.observeRequest(client, request)
    const epoch = this.page.claim(vcpu)
    let effect: Effect.Effect<IoValue, unknown>
    try {
      effect = client.handle(request)
    } catch (defect) {
      return this.settle(client, request, epoch, Exit.die(defect))
    }
    if (isSettled(effect)) return this.settle(client, request, epoch, effect)
    const fiber = client.run(effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) this.settle(client, request, epoch, exit)
    else this.hold(client, request, epoch, fiber)
  }

  private hold(client: Client, request: IoRequest, epoch: number, fiber: InFlight["fiber"]): void {
    this.inFlight[request.vcpu] = { client, request, epoch, fiber }
    fiber.addObserver((exit) => this.settle(client, request, epoch, exit))
  }

  private settle(client: Client, request: IoRequest, epoch: number, exit: Exit.Exit<IoValue, unknown>): void {
    const vcpu = request.vcpu
    if (this.inFlight[vcpu]?.epoch === epoch) this.inFlight[vcpu] = undefined
    if (exit._tag === "Success") this.complete(client, request, epoch, exit.value)
    else if (this.complete(client, request, epoch, undefined)) {
      this.report({ _tag: "HandlerFailed", client: client.name, request, problem: Cause.pretty(exit.cause) })
    }
    if (this.waiters.length > 0 && !this.isHolding()) this.wake()
  }

  private complete(client: Client, request: IoRequest, epoch: number, value: IoValue): boolean {
    switch (this.page.complete(request.vcpu, epoch, value)) {
      case "Stale":
        return false
      case "Foreign":
        this.report({ _tag: "ForeignStep", vcpu: request.vcpu, problem: this.page.problem })
        return false
      case "Completed":
        if (this.observers.length > 0) this.observeCompletion(client.name, request, value)
        return true
    }
  }

  private answerConfigAddress(vcpu: number, request: IoRequest, value: number): void {
    if (this.observers.length > 0) {
      for (const observer of this.observers) observer.onRequest?.(CONFIG_ADDRESS, request)
      this.observeCompletion(CONFIG_ADDRESS, request, value)
    }
    this.page.answer(vcpu, value)
  }

  private answerUnhandled(vcpu: number, request: IoRequest): void {
    this.unhandled++
    if (this.observers.length > 0) {
      for (const observer of this.observers) observer.onRequest?.(NOBODY, request)
      this.observeCompletion(NOBODY, request, undefined)
    }
    this.page.answer(vcpu, undefined)
    this.report({ _tag: "Unhandled", request, nearest: this.routes.nearest(request) })
  }

  private observeRequest(client: Client, request: IoRequest): void {
    for (const observer of this.observers) observer.onRequest?.(client.name, request)
  }

  private observeCompletion(client: string, request: IoRequest, value: IoValue): void {
    const read = SlotWords.guestReads(request, value)
    for (const observer of this.observers) observer.onComplete?.(client, request, read)
  }

  private report(event: DispatchEvent): void {
    if (this.recent.length === RECENT_EVENTS) this.recent.shift()
    this.recent.push(event)
    for (const listener of this.listeners) listener(event)
  }

  private isHolding(): boolean {
    return this.inFlight.some((held) => held !== undefined)
  }

  private wake(): void {
    const waiters = this.waiters
    this.waiters = []
    for (const waiter of waiters) waiter()
  }

  /** Completes what a client holds (or every client, without one) with all-ones; the fibers are for the caller to end. */
  private abandon(client: Client | undefined): Array<Fiber.Fiber<IoValue, unknown>> {
    const fibers: Array<Fiber.Fiber<IoValue, unknown>> = []
    for (let vcpu = 0; vcpu < this.inFlight.length; vcpu++) {
      const held = this.inFlight[vcpu]
      if (held === undefined || (client !== undefined && held.client !== client)) continue
      this.inFlight[vcpu] = undefined
      fibers.push(held.fiber)
      this.complete(held.client, held.request, held.epoch, undefined)
      this.report({ _tag: "Abandoned", client: held.client.name, request: held.request })
    }
    if (this.waiters.length > 0 && !this.isHolding()) this.wake()
    return fibers
  }

  /** Completes everything with all-ones and ends the fibers: a VM that is closed, or reset. */
  readonly abandonAll: Effect.Effect<void> = Effect.suspend(() => interruptOthers(this.abandon(undefined)))

  /** After the hypervisor cleared the slots: nothing of the old life completes in the new one. */
  readonly forgetAll: Effect.Effect<void> = Effect.suspend(() => {
    this.page.forgetAll()
    this.configAddress.reset()
    const fibers = this.inFlight.flatMap((held) => held === undefined ? [] : [held.fiber])
    this.inFlight.fill(undefined)
    if (this.waiters.length > 0) this.wake()
    return interruptOthers(fibers)
  })

  private readonly enlist = <E, R>(options: Omit<IoClientOptions<E, R>, "ranges">) =>
    Effect.map(Effect.context<R>(), (context): Client => {
      const guestContext = this.guestTime === undefined ? context : context.pipe(
        Context.add(Clock.Clock, this.guestTime.clock),
        Context.add(Scheduler.Scheduler, this.guestTime.scheduler)
      )
      const run = Effect.runForkWith(guestContext)
      // The context gives the handler all of its R; erasing it keeps the hot path monomorphic.
      return {
        name: options.name,
        handle: options.handle as Client["handle"],
        run,
        requests: 0
      }
    })

  private readonly retire = (client: Client) =>
    Effect.suspend(() => {
      this.routes.removeOwner(client)
      this.clients.splice(this.clients.indexOf(client), 1)
      if (this.defaultClient === client) this.defaultClient = undefined
      return interruptOthers(this.abandon(client))
    })

  readonly register = <E, R>(options: IoClientOptions<E, R>) =>
    Effect.acquireRelease(
      Effect.flatMap(this.enlist(options), (client) =>
        Effect.suspend(() => {
          const refusal = this.routes.addAll(client, options.ranges)
          if (refusal !== undefined) return Effect.fail(new IoDispatcherError({ reason: refusal }))
          this.clients.push(client)
          return Effect.succeed(client)
        })),
      this.retire
    ).pipe(Effect.map((client): IoClient => this.handleOf(client)))

  readonly registerDefault = <E, R>(options: Omit<IoClientOptions<E, R>, "ranges">) =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.flatMap(this.enlist(options), (client) =>
        Effect.suspend(() => {
          if (this.defaultClient !== undefined) {
            return Effect.fail(
              new IoDispatcherError({
                reason: { _tag: "DefaultTaken", client: client.name, owner: this.defaultClient.name }
              })
            )
          }
          this.defaultClient = client
          this.clients.push(client)
          return Effect.succeed(client)
        })),
      this.retire
    ))

  private handleOf(client: Client): IoClient {
    const attempt = (change: () => ReturnType<Routes["addAll"]>) =>
      Effect.suspend(() => {
        const refusal = change()
        return refusal === undefined ? Effect.void : Effect.fail(new IoDispatcherError({ reason: refusal }))
      })
    return {
      name: client.name,
      addRange: (range) => attempt(() => this.routes.addAll(client, [range])),
      removeRange: (range) => attempt(() => this.routes.remove(client, range)),
      moveRange: (from, to) => attempt(() => this.routes.move(client, from, to))
    }
  }

  private readonly proceed: Effect.Effect<void> = Effect.sync(() => {
    if (!this.isDraining) return
    this.isDraining = false
    this.serve(undefined)
  })

  private readonly drain = (deadline: Duration.Input = DEFAULT_DEADLINE): Effect.Effect<void, IoDispatcherError> =>
    Effect.suspend(() => {
      this.isDraining = true
      if (!this.isHolding()) return Effect.void
      const settled = Effect.callback<void>((resume) => {
        const waiter = () => resume(Effect.void)
        this.waiters.push(waiter)
        return Effect.sync(() => {
          this.waiters = this.waiters.filter((other) => other !== waiter)
        })
      })
      return Effect.timeoutOrElse(settled, {
        duration: deadline,
        orElse: () =>
          Effect.suspend(() => {
            const clients = this.inFlight.flatMap((held) => held === undefined ? [] : [held.client.name])
            return Effect.andThen(
              this.proceed,
              Effect.fail(
                new IoDispatcherError({
                  reason: {
                    _tag: "DrainTimeout",
                    clients,
                    deadlineMs: Duration.toMillis(Duration.fromInputUnsafe(deadline))
                  }
                })
              )
            )
          })
      })
    }).pipe(Effect.onInterrupt(() => this.proceed))

  private readonly events: Stream.Stream<DispatchEvent> = Stream.callback<DispatchEvent>(
    (queue) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const listener = (event: DispatchEvent) => Queue.offerUnsafe(queue, event)
          this.listeners = [...this.listeners, listener]
          return listener
        }),
        (listener) =>
          Effect.sync(() => {
            this.listeners = this.listeners.filter((other) => other !== listener)
          })
      ),
    { bufferSize: 1024, strategy: "sliding" }
  )

  private stepListeners: ReadonlyArray<(step: RequestTransition) => void> = []

  private setStepListeners(listeners: ReadonlyArray<(step: RequestTransition) => void>): void {
    this.stepListeners = listeners
    this.page.observer = listeners.length === 0 ? undefined : (vcpu, epoch, from, command, to) => {
      const step: RequestTransition = { _tag: "RequestTransition", vcpu: vcpu as VcpuId, epoch, from, command, to }
      for (const listener of this.stepListeners) listener(step)
    }
  }

  private readonly transitions: Stream.Stream<RequestTransition> = Stream.callback<RequestTransition>(
    (queue) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const listener = (step: RequestTransition) => Queue.offerUnsafe(queue, step)
          this.setStepListeners([...this.stepListeners, listener])
          return listener
        }),
        (listener) => Effect.sync(() => this.setStepListeners(this.stepListeners.filter((other) => other !== listener)))
      ),
    { bufferSize: 4096, strategy: "sliding" }
  )

  private readonly observe = (observer: RequestObserver) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        this.observers = [...this.observers, observer]
      }),
      () =>
        Effect.sync(() => {
          this.observers = this.observers.filter((other) => other !== observer)
        })
    )

  readonly service: IoDispatcher["Service"] = IoDispatcher.of({
    register: this.register,
    registerDefault: this.registerDefault,
    counts: Effect.sync(() => [
      ...this.clients.map(({ name, requests }) => ({ client: name, requests })),
      ...(this.unhandled === 0 ? [] : [{ client: NOBODY, requests: this.unhandled }])
    ]),
    recentEvents: Effect.sync(() => [...this.recent]),
    events: this.events,
    transitions: this.transitions,
    observe: this.observe,
    drain: this.drain,
    proceed: this.proceed
  })
}

/** A handler may close its own client or VM: it cannot wait for itself to end. */
const interruptOthers = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>): Effect.Effect<void> =>
  Effect.withFiber((self) => Fiber.interruptAll(fibers.filter((fiber) => fiber.id !== self.id)))

/** Stands in for a client's name where there is none. */
const NOBODY = "(nobody)"

/** The dispatcher itself, which keeps PCI's address register. */
const CONFIG_ADDRESS = "(PCI config address)"
