/**
 * The dispatcher's machinery: from a look at a slot to its completion. What it does per request is plain synchronous
 * code; Effect comes in with the handler.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
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
  type IoDispatcherErrorReason,
  type RequestObserver
} from "../IoDispatcher.ts"
import type { ServicePage } from "../ServiceMemory.ts"
import type { Client } from "./Client.ts"
import { ConfigAddress } from "./ConfigAddress.ts"
import { inGuestTime } from "./guestContext.ts"
import { Listeners } from "./Listeners.ts"
import { RequestPage, type StepObserver } from "./RequestPage.ts"
import { Routes } from "./Routes.ts"

interface InFlight {
  readonly client: Client
  readonly request: IoRequest
  readonly epoch: number
  readonly fiber: Fiber.Fiber<IoValue, unknown>
}

/**
 * A handler that is being started, per vCPU: it is below in the stack whenever anything else runs, for a handler can
 * wake fibers that run in its own stack. `client` is undefined while there is none.
 */
interface Starting {
  client: Client | undefined
  request: IoRequest | undefined
  epoch: number
  /** The fiber that took its request away; it may be the handler's own. */
  endedBy: number
}

/** Whether a handler's Effect is its result already. `isExit` alone is slow for one that is not: most handlers'. */
const isSettled = (effect: Effect.Effect<IoValue, unknown>): effect is Exit.Exit<IoValue, unknown> => {
  const tag = (effect as { readonly _tag?: unknown })._tag
  return (tag === "Success" || tag === "Failure") && Exit.isExit(effect)
}

const RECENT_EVENTS = 256
const NO_FIBER = -1
const DEFAULT_DEADLINE = Duration.seconds(1)

export class Dispatcher {
  readonly page: RequestPage
  readonly routes = new Routes()
  readonly configAddress = new ConfigAddress()
  unhandled = 0
  private readonly guestTime: GuestTime | undefined
  private readonly clients: Array<Client> = []
  private readonly inFlight: Array<InFlight | undefined>
  private readonly starting: ReadonlyArray<Starting>
  private defaultClient: Client | undefined
  /** Drains that hold new requests back. */
  private drains = 0
  private waiters: Array<() => void> = []
  private observers: ReadonlyArray<RequestObserver> = []
  private recent: Array<DispatchEvent> = []
  private readonly events = new Listeners<DispatchEvent>(1024)
  private readonly steps = new Listeners<RequestTransition>(4096, (isHeard) => {
    this.page.observer = isHeard ? this.tellStep : undefined
  })

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
    this.starting = Array.from({ length: vcpus }, () => ({
      client: undefined,
      request: undefined,
      epoch: 0,
      endedBy: NO_FIBER
    }))
  }

  /** Looks at one slot, or at all; what an upcall asks for. */
  serve(vcpu: number | undefined): void {
    if (vcpu === undefined) {
      for (let each = 0; each < this.page.vcpus; each++) this.serveSlot(each)
    } else if (Number.isInteger(vcpu) && vcpu >= 0 && vcpu < this.page.vcpus) {
      this.serveSlot(vcpu)
    }
  }

  private serveSlot(vcpu: number): void {
    if (this.drains > 0) return
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
    if (this.observers.length > 0) this.observeRequest(client.name, request)
    const epoch = this.page.claim(vcpu)
    const starting = this.starting[vcpu]!
    starting.client = client
    starting.request = request
    starting.epoch = epoch
    let fiber: InFlight["fiber"] | undefined
    let exit: Exit.Exit<IoValue, unknown> | undefined
    // What throws here is a handler that is none, or that answers with what is no Effect.
    try {
      const effect = client.handle(request)
      if (isSettled(effect)) exit = effect
      else {
        fiber = client.run(effect)
        exit = fiber.pollUnsafe()
      }
    } catch (defect) {
      exit = Exit.die(defect)
    }
    starting.client = undefined
    if (exit !== undefined) this.settle(client, request, epoch, exit)
    else this.hold(client, request, epoch, fiber!)
  }

  private hold(client: Client, request: IoRequest, epoch: number, fiber: InFlight["fiber"]): void {
    const vcpu = request.vcpu
    if (this.page.isHeld(vcpu) && this.page.epoch(vcpu) === epoch) {
      this.inFlight[vcpu] = { client, request, epoch, fiber }
      fiber.addObserver((exit) => {
        this.settle(client, request, epoch, exit)
        // A slot that the hypervisor cleared meanwhile may show a new request, whose upcall came while this was held.
        this.serveSlot(vcpu)
      })
    } else {
      // The request was taken from the handler while it started, when its fiber was not known yet. One that closed its
      // own client or VM goes on: it may still be closing.
      if (fiber.id !== this.starting[vcpu]!.endedBy) fiber.interruptUnsafe()
      if (this.waiters.length > 0 && !this.isHolding()) this.wake()
    }
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
      this.observeRequest(CONFIG_ADDRESS, request)
      this.observeCompletion(CONFIG_ADDRESS, request, value)
    }
    this.page.answer(vcpu, value)
  }

  private answerUnhandled(vcpu: number, request: IoRequest): void {
    this.unhandled++
    if (this.observers.length > 0) {
      this.observeRequest(NOBODY, request)
      this.observeCompletion(NOBODY, request, undefined)
    }
    this.page.answer(vcpu, undefined)
    this.report({ _tag: "Unhandled", request, nearest: this.routes.nearest(request) })
  }

  private observeRequest(client: string, request: IoRequest): void {
    this.tell((observer) => observer.onRequest?.(client, request))
  }

  private observeCompletion(client: string, request: IoRequest, value: IoValue): void {
    const read = SlotWords.guestReads(request, value)
    this.tell((observer) => observer.onComplete?.(client, request, read))
  }

  /** An observer that throws hears no more: the vCPU in whose stack it is called must not suffer for it. */
  private tell(notify: (observer: RequestObserver) => void): void {
    for (const observer of this.observers) {
      try {
        notify(observer)
      } catch (defect) {
        this.observers = this.observers.filter((other) => other !== observer)
        this.report({ _tag: "ObserverFailed", problem: String(defect) })
      }
    }
  }

  private report(event: DispatchEvent): void {
    if (this.recent.length === RECENT_EVENTS) this.recent.shift()
    this.recent.push(event)
    this.events.tell(event)
  }

  private readonly tellStep: StepObserver = (vcpu, epoch, from, command, to) => {
    this.steps.tell({ _tag: "RequestTransition", vcpu: vcpu as VcpuId, epoch, from, command, to })
  }

  private isHolding(): boolean {
    return this.inFlight.some((held) => held !== undefined) ||
      this.starting.some(({ client }) => client !== undefined)
  }

  private wake(): void {
    const waiters = this.waiters
    this.waiters = []
    for (const waiter of waiters) waiter()
  }

  /** Completes what a client holds (or every client, without one) with all-ones; the fibers are for the caller to end. */
  private abandon(client: Client | undefined, by: number): Array<Fiber.Fiber<IoValue, unknown>> {
    const fibers: Array<Fiber.Fiber<IoValue, unknown>> = []
    for (let vcpu = 0; vcpu < this.inFlight.length; vcpu++) {
      const held = this.inFlight[vcpu]
      if (held === undefined || (client !== undefined && held.client !== client)) continue
      this.inFlight[vcpu] = undefined
      fibers.push(held.fiber)
      this.complete(held.client, held.request, held.epoch, undefined)
      this.report({ _tag: "Abandoned", client: held.client.name, request: held.request })
    }
    for (const starting of this.starting) {
      const { client: owner, epoch, request } = starting
      if (owner === undefined || (client !== undefined && owner !== client)) continue
      starting.endedBy = by
      if (this.complete(owner, request!, epoch, undefined)) {
        this.report({ _tag: "Abandoned", client: owner.name, request: request! })
      }
    }
    if (this.waiters.length > 0 && !this.isHolding()) this.wake()
    return fibers
  }

  private leaving: ReadonlyArray<Fiber.Fiber<unknown, unknown>> = []

  /** Completes everything with all-ones and tells the fibers to end: a VM that is closed. */
  readonly abandonAll: Effect.Effect<void> = Effect.withFiber((self) => {
    const fibers = others(this.abandon(undefined, self.id), self)
    this.leaving = [...this.leaving, ...fibers]
    for (const fiber of fibers) fiber.interruptUnsafe(self.id)
    return Effect.void
  })

  /** Waits for the fibers that {@link abandonAll} told to end. */
  readonly handlersEnded: Effect.Effect<void> = Effect.withFiber((self) =>
    Effect.asVoid(Fiber.awaitAll(others(this.leaving, self)))
  )

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
      const run = Effect.runForkWith(this.guestTime === undefined ? context : inGuestTime(context, this.guestTime))
      // The context gives the handler all of its R; erasing it keeps the hot path monomorphic.
      return {
        name: options.name,
        handle: options.handle as Client["handle"],
        run,
        requests: 0,
        isRetired: false
      }
    })

  private readonly retire = (client: Client) =>
    Effect.withFiber((self) => {
      client.isRetired = true
      this.routes.removeOwner(client)
      this.clients.splice(this.clients.indexOf(client), 1)
      if (this.defaultClient === client) this.defaultClient = undefined
      return interruptOthers(this.abandon(client, self.id))
    })

  /** A client from when `claim` gave it its place, which it may refuse, until the scope closes. */
  private readonly admit = <E, R>(
    options: Omit<IoClientOptions<E, R>, "ranges">,
    claim: (client: Client) => IoDispatcherErrorReason | undefined
  ) =>
    Effect.acquireRelease(
      Effect.flatMap(this.enlist(options), (client) =>
        Effect.suspend(() => {
          const refusal = claim(client)
          if (refusal !== undefined) return Effect.fail(new IoDispatcherError({ reason: refusal }))
          this.clients.push(client)
          return Effect.succeed(client)
        })),
      this.retire
    )

  readonly register = <E, R>(options: IoClientOptions<E, R>) =>
    Effect.map(
      this.admit(options, (client) => this.routes.addAll(client, options.ranges)),
      (client): IoClient => this.handleOf(client)
    )

  readonly registerDefault = <E, R>(options: Omit<IoClientOptions<E, R>, "ranges">) =>
    Effect.asVoid(this.admit(options, (client) => {
      if (this.defaultClient !== undefined) {
        return { _tag: "DefaultTaken", client: client.name, owner: this.defaultClient.name }
      }
      this.defaultClient = client
      return undefined
    }))

  private handleOf(client: Client): IoClient {
    const attempt = (change: () => IoDispatcherErrorReason | undefined) =>
      Effect.suspend(() => {
        const refusal = client.isRetired ? { _tag: "Closed", client: client.name } as const : change()
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
    if (this.drains === 0) return
    this.drains = 0
    this.serve(undefined)
  })

  /** One drain did not succeed; another may still hold requests back. */
  private readonly giveUp: Effect.Effect<void> = Effect.suspend(() => {
    if (this.drains > 1) this.drains--
    else return this.proceed
    return Effect.void
  })

  private readonly drain = (deadline: Duration.Input = DEFAULT_DEADLINE): Effect.Effect<void, IoDispatcherError> =>
    Effect.suspend(() => {
      this.drains++
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
            return Effect.fail(
              new IoDispatcherError({
                reason: {
                  _tag: "DrainTimeout",
                  clients,
                  deadlineMs: Duration.toMillis(Duration.fromInputUnsafe(deadline))
                }
              })
            )
          })
      })
    }).pipe(Effect.onError(() => this.giveUp))

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
    events: this.events.stream,
    transitions: this.steps.stream,
    observe: this.observe,
    drain: this.drain,
    proceed: this.proceed
  })
}

/** A handler may close its own client or VM: it cannot wait for itself to end. */
const others = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>, self: Fiber.Fiber<unknown, unknown>) =>
  fibers.filter((fiber) => fiber.id !== self.id)

const interruptOthers = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>): Effect.Effect<void> =>
  Effect.withFiber((self) => Fiber.interruptAll(others(fibers, self)))

/** Stands in for a client's name where there is none. */
const NOBODY = "(nobody)"

/** The dispatcher itself, which keeps PCI's address register. */
const CONFIG_ADDRESS = "(PCI config address)"
