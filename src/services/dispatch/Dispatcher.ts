/**
 * The dispatcher's machinery: from a look at a slot to its completion. What it does per request is plain synchronous
 * code; Effect comes in with the handler.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { VcpuId } from "../../domain/Address.ts"
import type { DispatchEvent } from "../../domain/DispatchEvent.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import * as SlotWords from "../../domain/SlotWords.ts"
import type { GuestTime } from "../Hypervisor.ts"
import {
  AroundHandlers,
  type IoClient,
  type IoClientOptions,
  IoDispatcher,
  IoDispatcherError,
  type IoDispatcherErrorReason,
  type RequestHandler,
  type RequestObserver
} from "../IoDispatcher.ts"
import type { ServicePage } from "../ServiceMemory.ts"
import type { Client, Deadline } from "./Client.ts"
import { ConfigAddress } from "./ConfigAddress.ts"
import { inGuestTime } from "./guestContext.ts"
import { Intake } from "./Intake.ts"
import { isInterval, millisOf } from "./interval.ts"
import { Listeners } from "./Listeners.ts"
import type { Holder, PageUse } from "./PageUse.ts"
import { ageOf, BY_HAND, byHand, RequestPage } from "./RequestPage.ts"
import { Routes } from "./Routes.ts"
import { TransitionRing } from "./TransitionRing.ts"

interface InFlight {
  readonly client: Client
  readonly request: IoRequest
  readonly epoch: number
  readonly fiber: Fiber.Fiber<IoValue, unknown>
  /** When it was held, by its client's clock. */
  readonly since: number
  /** Runs until the client's deadline. */
  timer: Fiber.Fiber<unknown, unknown> | undefined
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
  /** Told when the handler has ended, for who took its request away and waits for that. */
  ended: Deferred.Deferred<void> | undefined
}

/** Handlers whose requests were taken away: those with a fiber, and those that are still being started. */
interface Abandoned {
  readonly fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
  readonly started: ReadonlyArray<Deferred.Deferred<void>>
}

/** Whether a handler's Effect is its result already. `isExit` alone is slow for one that is not: most handlers'. */
const isSettled = (effect: Effect.Effect<IoValue, unknown>): effect is Exit.Exit<IoValue, unknown> => {
  const tag = (effect as { readonly _tag?: unknown })._tag
  return (tag === "Success" || tag === "Failure") && Exit.isExit(effect)
}

const RECENT_EVENTS = 256
const SHOWN_NEAR_MISSES = 8
const NO_FIBER = -1

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
  /** Handlers whose request was taken away and that have not ended yet, with their clients. */
  private readonly late = new Map<Fiber.Fiber<unknown, unknown>, Client>()
  private readonly intake = new Intake(() => this.holders(), () => this.serve(undefined))
  private observers: ReadonlyArray<RequestObserver> = []
  private recent: Array<DispatchEvent> = []
  private readonly events = new Listeners<DispatchEvent>(1024)
  private readonly transitions = new TransitionRing((isRead) => {
    this.page.transitions = isRead ? this.transitions : undefined
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
      return result
    })
    this.page.onHandClaimOver = (vcpu) => this.afterHeld(vcpu)
    this.page.clock = guestTime?.clock
    this.guestTime = guestTime
    this.inFlight = Array.from({ length: vcpus }, () => undefined)
    this.starting = Array.from({ length: vcpus }, () => ({
      client: undefined,
      request: undefined,
      epoch: 0,
      endedBy: NO_FIBER,
      ended: undefined
    }))
  }

  /** Looks at one slot, or at all; what an upcall asks for. */
  serve(vcpu: number | undefined): void {
    if (vcpu === undefined) {
      for (let each = 0; each < this.page.vcpus; each++) this.serveSlot(each)
      return
    }
    // Guard: cve-2019-14821
    if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= this.page.vcpus) return
    this.serveSlot(vcpu)
  }

  private serveSlot(vcpu: number): void {
    if (this.intake.holds > 0) return
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
    // Guard: no-client
    if (client === undefined) return this.answerUnhandled(vcpu, request)
    client.requests++
    const epoch = this.page.claim(vcpu)
    const starting = this.starting[vcpu]!
    starting.client = client
    starting.request = request
    starting.epoch = epoch
    if (this.observers.length > 0) {
      this.observeRequest(client.name, request)
      // An observer may do anything, and so take the request away before its handler is asked.
      if (!this.isClaimed(vcpu, epoch)) {
        starting.client = undefined
        this.takeEnded(vcpu)()
        return this.intake.requestOver()
      }
    }
    let fiber: InFlight["fiber"] | undefined
    let exit: Exit.Exit<IoValue, unknown> | undefined
    // What throws here is a handler that is none, or that answers with what is no Effect.
    // Guard: handler-error
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
    if (exit === undefined) this.hold(client, request, epoch, fiber!)
    else {
      this.settle(client, request, epoch, exit)
      if (starting.ended !== undefined) this.takeEnded(vcpu)()
    }
  }

  /** What tells whoever waits for the handler that was being started; to be called once it has ended. */
  private takeEnded(vcpu: number): () => void {
    const starting = this.starting[vcpu]!
    const ended = starting.ended
    starting.ended = undefined
    return () => {
      if (ended !== undefined) Deferred.doneUnsafe(ended, Exit.void)
    }
  }

  private isClaimed(vcpu: number, epoch: number): boolean {
    return this.page.isHeld(vcpu) && this.page.epoch(vcpu) === epoch
  }

  private hold(client: Client, request: IoRequest, epoch: number, fiber: InFlight["fiber"]): void {
    const vcpu = request.vcpu
    // Guard: acrn-611944c01
    if (!this.isClaimed(vcpu, epoch)) {
      // The request was taken from the handler while it started, when its fiber was not known yet. One that closed its
      // own client or VM goes on: it may still be closing, and does not wait for itself.
      const tellEnded = this.takeEnded(vcpu)
      if (fiber.id === this.starting[vcpu]!.endedBy) tellEnded()
      else {
        this.awaitEnd(client, fiber)
        fiber.addObserver(tellEnded)
        fiber.interruptUnsafe()
      }
      this.intake.requestOver()
      return
    }
    const since = client.clock.currentTimeMillisUnsafe()
    const held: InFlight = { client, request, epoch, fiber, since, timer: undefined }
    this.inFlight[vcpu] = held
    fiber.addObserver((exit) => {
      this.settle(client, request, epoch, exit)
      this.afterHeld(vcpu)
    })
    if (client.deadline !== undefined) this.limit(held, client.deadline)
  }

  private limit(held: InFlight, { millis, wait }: Deadline): void {
    const timer = held.client.run(wait)
    held.timer = timer
    // It also ends when the request is over before: then there is nothing to expire.
    timer.addObserver(() => this.expire(held, millis))
  }

  /** The request is over at once, whenever its handler ends. */
  private expire(held: InFlight, deadlineMs: number): void {
    const { client, epoch, fiber, request } = held
    if (this.inFlight[request.vcpu] !== held) return
    this.letGo(held)
    this.awaitEnd(client, fiber)
    if (this.complete(client, request, epoch, undefined)) {
      this.report({ _tag: "DeadlinePassed", client: client.name, request, deadlineMs })
    }
    fiber.interruptUnsafe()
    this.afterHeld(request.vcpu)
  }

  /** Whoever closes the client waits for this handler, whoever told it to end. */
  private awaitEnd(client: Client, fiber: Fiber.Fiber<unknown, unknown>): void {
    this.late.set(fiber, client)
    fiber.addObserver(() => this.late.delete(fiber))
  }

  /** A request is not in flight any more: nothing waits for its end or its deadline. */
  private letGo(held: InFlight): void {
    this.inFlight[held.request.vcpu] = undefined
    const timer = held.timer
    held.timer = undefined
    timer?.interruptUnsafe()
  }

  private afterHeld(vcpu: number): void {
    this.intake.requestOver()
    // A slot that the hypervisor cleared meanwhile may show a new request, whose upcall came while this was held.
    this.serveSlot(vcpu)
  }

  private settle(client: Client, request: IoRequest, epoch: number, exit: Exit.Exit<IoValue, unknown>): void {
    const vcpu = request.vcpu
    const held = this.inFlight[vcpu]
    if (held !== undefined && held.epoch === epoch) this.letGo(held)
    if (exit._tag === "Success") this.complete(client, request, epoch, exit.value)
    else this.fail(client, request, epoch, exit.cause)
    this.intake.requestOver()
  }

  /** A handler that failed has answered all the same: its vCPU must not ask again, nor wait. */
  private fail(client: Client, request: IoRequest, epoch: number, cause: Cause.Cause<unknown>): void {
    // Guard: handler-error
    if (this.complete(client, request, epoch, undefined)) {
      this.report({ _tag: "HandlerFailed", client: client.name, request, problem: Cause.pretty(cause) })
    }
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
    this.page.answer(vcpu, value)
    if (this.observers.length > 0) this.observeAnswer(CONFIG_ADDRESS, request, value)
  }

  private answerUnhandled(vcpu: number, request: IoRequest): void {
    this.unhandled++
    // Before the observers, which may do anything: reset the VM, so that the slot is the hypervisor's.
    this.page.answer(vcpu, undefined)
    if (this.observers.length > 0) this.observeAnswer(NOBODY, request, undefined)
    this.report({ _tag: "Unhandled", request, nearest: this.routes.nearest(request) })
  }

  private observeRequest(client: string, request: IoRequest): void {
    this.tell((observer) => observer.onRequest?.(client, request))
  }

  private observeCompletion(client: string, request: IoRequest, value: IoValue): void {
    const read = SlotWords.guestReads(request, value)
    this.tell((observer) => observer.onComplete?.(client, request, read))
  }

  /** Both at once for each: one that came because of the first half must not hear the second alone. */
  private observeAnswer(client: string, request: IoRequest, value: IoValue): void {
    const read = SlotWords.guestReads(request, value)
    this.tell((observer) => {
      observer.onRequest?.(client, request)
      observer.onComplete?.(client, request, read)
    })
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

  /** What of this dispatcher is shown beside its page. */
  readonly pageUse: PageUse = {
    holder: (vcpu) => this.holderOf(vcpu),
    ranges: () => this.routes.sorted,
    nearMisses: () =>
      this.recent.flatMap((event) =>
        event._tag === "Unhandled" ? [{ request: event.request, nearest: event.nearest }] : []
      ).slice(-SHOWN_NEAR_MISSES)
  }

  private holderOf(vcpu: number): Holder | undefined {
    const held = this.inFlight[vcpu]
    if (held !== undefined) {
      const { client, request, since } = held
      return { client: client.name, request, ageMs: ageOf(client.clock, since) }
    }
    const { client, request } = this.starting[vcpu]!
    if (client !== undefined) return { client: client.name, request: request!, ageMs: undefined }
    return byHand(this.page, vcpu)
  }

  /** Who holds requests, a name for each: clients, and programs by hand. */
  private holders(): ReadonlyArray<string> {
    return this.inFlight.flatMap((_, vcpu) => this.holderOf(vcpu)?.client ?? [])
  }

  /** Completes what a client holds (or every client, without one) with all-ones; the fibers are for the caller to end. */
  private abandon(client: Client | undefined, by: number): Abandoned {
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    const started: Array<Deferred.Deferred<void>> = []
    // Guard: xen-f7039ee41b
    for (let vcpu = 0; vcpu < this.inFlight.length; vcpu++) {
      const held = this.inFlight[vcpu]
      if (held === undefined || (client !== undefined && held.client !== client)) continue
      this.letGo(held)
      this.awaitEnd(held.client, held.fiber)
      this.complete(held.client, held.request, held.epoch, undefined)
      this.report({ _tag: "Abandoned", client: held.client.name, request: held.request })
    }
    // Guard: acrn-611944c01
    for (const starting of this.starting) {
      const { client: owner, epoch, request } = starting
      if (owner === undefined || (client !== undefined && owner !== client)) continue
      starting.endedBy = by
      starting.ended ??= Deferred.makeUnsafe()
      started.push(starting.ended)
      if (this.complete(owner, request!, epoch, undefined)) {
        this.report({ _tag: "Abandoned", client: owner.name, request: request! })
      }
    }
    for (const [fiber, owner] of this.late) {
      if (client === undefined || owner === client) fibers.push(fiber)
    }
    this.intake.requestOver()
    return { fibers, started }
  }

  private abandonHandClaims(): void {
    for (let vcpu = 0; vcpu < this.page.vcpus; vcpu++) {
      const claim = this.page.handClaim(vcpu)
      if (claim !== undefined && this.page.completeByHand(vcpu, claim.epoch, undefined) === "Completed") {
        this.report({ _tag: "Abandoned", client: BY_HAND, request: claim.request })
      }
    }
  }

  private leaving: Abandoned = { fibers: [], started: [] }

  /** Completes everything with all-ones and tells the fibers to end: a VM that is closed. */
  readonly abandonAll: Effect.Effect<void> = Effect.withFiber((self) => {
    this.abandonHandClaims()
    const abandoned = this.abandon(undefined, self.id)
    const fibers = others(abandoned.fibers, self)
    this.leaving = {
      fibers: [...this.leaving.fibers, ...fibers],
      started: [...this.leaving.started, ...abandoned.started]
    }
    for (const fiber of fibers) fiber.interruptUnsafe(self.id)
    return Effect.void
  })

  /** Waits for the fibers that {@link abandonAll} told to end. */
  readonly handlersEnded: Effect.Effect<void> = Effect.withFiber((self) =>
    Effect.andThen(Fiber.awaitAll(others(this.leaving.fibers, self)), awaitStarted(this.leaving))
  )

  /** After the hypervisor cleared the slots: nothing of the old life completes in the new one. */
  readonly forgetAll: Effect.Effect<void> = Effect.suspend(() => {
    this.page.forgetAll()
    this.configAddress.reset()
    const forgotten = this.inFlight.filter((held) => held !== undefined)
    for (const held of forgotten) {
      this.letGo(held)
      this.awaitEnd(held.client, held.fiber)
    }
    this.intake.requestOver()
    return interruptOthers(forgotten.map(({ fiber }) => fiber))
  })

  private readonly enlist = <E, R>(options: Omit<IoClientOptions<E, R>, "ranges">) =>
    Effect.map(Effect.context<R>(), (context): Client => {
      const run = Effect.runForkWith(this.guestTime === undefined ? context : inGuestTime(context, this.guestTime))
      // The context gives the handler all of its R; erasing it keeps the hot path monomorphic.
      return {
        name: options.name,
        handle: Context.get(context, AroundHandlers)(options.name, options.handle as RequestHandler),
        run,
        clock: this.guestTime?.clock ?? Context.get(context, Clock.Clock),
        deadline: options.deadline === undefined ? undefined : deadlineOf(options.deadline),
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
      const abandoned = this.abandon(client, self.id)
      // Guard: cve-2021-36144
      if (abandoned.fibers.length > 0) return Effect.andThen(interruptOthers(abandoned.fibers), awaitStarted(abandoned))
      return awaitStarted(abandoned)
    })

  /** A client from when `claim` gave it its place, which it may refuse, until the scope closes. */
  private readonly admit = <E, R>(
    options: Omit<IoClientOptions<E, R>, "ranges">,
    claim: (client: Client) => IoDispatcherErrorReason | undefined
  ) =>
    Effect.acquireRelease(
      Effect.flatMap(this.enlist(options), (client) =>
        Effect.suspend(() => {
          const refusal = badDeadline(client) ?? claim(client)
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
        const refuse = (reason: IoDispatcherErrorReason) => Effect.fail(new IoDispatcherError({ reason }))
        // Guard: cve-2021-36145
        if (client.isRetired) return refuse({ _tag: "Closed", client: client.name })
        const refusal = change()
        return refusal === undefined ? Effect.void : refuse(refusal)
      })
    return {
      name: client.name,
      addRange: (range) => attempt(() => this.routes.addAll(client, [range])),
      removeRange: (range) => attempt(() => this.routes.remove(client, range)),
      moveRange: (from, to) => attempt(() => this.routes.move(client, from, to))
    }
  }

  /** Holds new requests back until {@link resume} and waits for those that are held; `proceed` does not end it. */
  readonly pause = this.intake.pause

  /** A pause that did not come to be. */
  readonly unpause = this.intake.unpause

  readonly resume = this.intake.resume

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
    transitions: this.transitions.stream,
    transitionsLost: Effect.sync(() => this.transitions.lost),
    observe: this.observe,
    drain: this.intake.drain,
    proceed: this.intake.proceed
  })
}

const deadlineOf = (deadline: Duration.Input): Deadline => {
  const millis = millisOf(deadline)
  return { millis, wait: Effect.sleep(millis) }
}

const badDeadline = ({ deadline, name }: Client): IoDispatcherErrorReason | undefined =>
  deadline === undefined || isInterval(deadline.millis)
    ? undefined
    : { _tag: "BadDeadline", client: name, deadlineMs: deadline.millis }

/** A handler may close its own client or VM: it cannot wait for itself to end. */
const others = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>, self: Fiber.Fiber<unknown, unknown>) =>
  fibers.filter((fiber) => fiber.id !== self.id)

const awaitStarted = ({ started }: Abandoned): Effect.Effect<void> =>
  Effect.forEach(started, Deferred.await, { discard: true })

const interruptOthers = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>): Effect.Effect<void> =>
  Effect.withFiber((self) => Fiber.interruptAll(others(fibers, self)))

/** Stands in for a client's name where there is none. */
const NOBODY = "(nobody)"

/** The dispatcher itself, which keeps PCI's address register. */
const CONFIG_ADDRESS = "(PCI config address)"
