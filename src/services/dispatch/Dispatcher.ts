/**
 * The path of one request, from a look at its slot to its completion. It is plain synchronous code; Effect comes in with
 * the handler.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { VcpuId } from "../../domain/Address.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import type { GuestTime } from "../Hypervisor.ts"
import { IoDispatcher } from "../IoDispatcher.ts"
import type { ServicePage } from "../ServiceMemory.ts"
import { Abandonment } from "./Abandonment.ts"
import type { Client, Deadline } from "./Client.ts"
import { Clients } from "./Clients.ts"
import { ConfigAddress } from "./ConfigAddress.ts"
import { pageFor } from "./DefaultClientPage.ts"
import { EventLog } from "./EventLog.ts"
import { type Held, InFlight } from "./InFlight.ts"
import { Intake } from "./Intake.ts"
import { Observers } from "./Observers.ts"
import type { Holder, PageUse } from "./PageUse.ts"
import { byHand, type RequestPage } from "./RequestPage.ts"
import { Routes } from "./Routes.ts"
import { TransitionRing } from "./TransitionRing.ts"

/** Whether a handler's Effect is its result already. `isExit` alone is slow for one that is not: most handlers'. */
const isSettled = (effect: Effect.Effect<IoValue, unknown>): effect is Exit.Exit<IoValue, unknown> => {
  const tag = (effect as { readonly _tag?: unknown })._tag
  return (tag === "Success" || tag === "Failure") && Exit.isExit(effect)
}

/** Stands in for a client's name where there is none. */
const NOBODY = "(nobody)"

/** The dispatcher itself, which keeps PCI's address register. */
const CONFIG_ADDRESS = "(PCI config address)"

export class Dispatcher {
  readonly page: RequestPage
  readonly service: IoDispatcher["Service"]
  /** Completes everything with all-ones and tells the handlers to end: a VM that is closed. */
  readonly abandonAll: Effect.Effect<void>
  /** Waits for the handlers that {@link abandonAll} told to end. */
  readonly handlersEnded: Effect.Effect<void>
  private readonly routes = new Routes()
  private readonly configAddress = new ConfigAddress()
  private readonly events = new EventLog()
  private readonly observers = new Observers(this.events)
  private readonly intake = new Intake(() => this.holders(), () => this.serve(undefined))
  private readonly inFlight: InFlight
  private readonly abandonment: Abandonment
  private readonly clients: Clients
  private readonly transitions = new TransitionRing((isRead) => {
    this.page.transitions = isRead ? this.transitions : undefined
  })
  private unhandled = 0

  constructor(
    page: ServicePage,
    vcpus: number,
    notifyFinish: (vcpu: number) => number,
    guestTime: GuestTime | undefined,
    role?: HypervisorProfile["dispatchRole"],
    vmId = 0
  ) {
    const { events, intake } = this
    this.page = pageFor(role, page, vcpus, (vcpu) => {
      const result = notifyFinish(vcpu)
      if (result < 0) events.report({ _tag: "NotifyRefused", vcpu: vcpu as VcpuId, result })
      return result
    })
    this.page.onHandClaimOver = (vcpu) => this.afterHeld(vcpu)
    this.page.clock = guestTime?.clock
    this.inFlight = new InFlight(vcpus)
    this.abandonment = new Abandonment({
      page: this.page,
      inFlight: this.inFlight,
      intake,
      events,
      complete: (client, request, epoch, value) => this.complete(client, request, epoch, value)
    })
    this.abandonAll = this.abandonment.abandonAll
    this.handlersEnded = this.abandonment.handlersEnded
    this.clients = new Clients(
      this.routes,
      guestTime,
      (client, self) => this.abandonment.endClient(client, self),
      vmId
    )
    this.service = this.makeService()
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
        return this.events.report({ _tag: "ForeignStep", vcpu: vcpu as VcpuId, problem: page.problem })
      case "Malformed": {
        const problem = page.problem
        page.answer(vcpu, undefined)
        return this.events.report({ _tag: "Malformed", vcpu: vcpu as VcpuId, problem })
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
    const client = this.routes.find(request) ?? this.clients.defaultClient
    // Guard: no-client
    if (client === undefined) return this.answerUnhandled(vcpu, request)
    client.requests++
    const epoch = this.page.claim(vcpu)
    this.inFlight.start(vcpu, client, request, epoch)
    if (this.observers.hasAny) {
      this.observers.tellRequest(client.name, request)
      // An observer may do anything, and so take the request away before its handler is asked.
      if (!this.isClaimed(vcpu, epoch)) {
        this.inFlight.started(vcpu)
        this.inFlight.tellEnded(vcpu)
        return this.intake.requestOver()
      }
    }
    let fiber: Held["fiber"] | undefined
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
    this.inFlight.started(vcpu)
    if (exit === undefined) this.hold(client, request, epoch, fiber!)
    else {
      this.settle(client, request, epoch, exit)
      this.inFlight.tellEnded(vcpu)
    }
  }

  private isClaimed(vcpu: number, epoch: number): boolean {
    return this.page.isHeld(vcpu) && this.page.epoch(vcpu) === epoch
  }

  private hold(client: Client, request: IoRequest, epoch: number, fiber: Held["fiber"]): void {
    const vcpu = request.vcpu
    // Guard: acrn-611944c01
    if (!this.isClaimed(vcpu, epoch)) {
      this.inFlight.endStarted(vcpu, client, fiber)
      this.intake.requestOver()
      return
    }
    const held = this.inFlight.hold(client, request, epoch, fiber)
    fiber.addObserver((exit) => {
      this.settle(client, request, epoch, exit)
      this.afterHeld(vcpu)
    })
    if (client.deadline !== undefined) this.limit(held, client.deadline)
  }

  private limit(held: Held, { millis, wait }: Deadline): void {
    const timer = held.client.run(wait)
    held.timer = timer
    // It also ends when the request is over before: then there is nothing to expire.
    timer.addObserver(() => this.expire(held, millis))
  }

  /** The request is over at once, whenever its handler ends. */
  private expire(held: Held, deadlineMs: number): void {
    const { client, epoch, fiber, request } = held
    if (this.inFlight.held[request.vcpu] !== held) return
    this.inFlight.takeAway(held)
    if (this.complete(client, request, epoch, undefined)) {
      this.events.report({ _tag: "DeadlinePassed", client: client.name, request, deadlineMs })
    }
    fiber.interruptUnsafe()
    this.afterHeld(request.vcpu)
  }

  private afterHeld(vcpu: number): void {
    this.intake.requestOver()
    // A slot that the hypervisor cleared meanwhile may show a new request, whose upcall came while this was held.
    this.serveSlot(vcpu)
  }

  private settle(client: Client, request: IoRequest, epoch: number, exit: Exit.Exit<IoValue, unknown>): void {
    this.inFlight.settle(request.vcpu, epoch)
    if (exit._tag === "Success") this.complete(client, request, epoch, exit.value)
    else this.fail(client, request, epoch, exit.cause)
    this.intake.requestOver()
  }

  /** A handler that failed has answered all the same: its vCPU must not ask again, nor wait. */
  private fail(client: Client, request: IoRequest, epoch: number, cause: Cause.Cause<unknown>): void {
    // Guard: handler-error
    if (this.complete(client, request, epoch, undefined)) {
      this.events.report({ _tag: "HandlerFailed", client: client.name, request, problem: Cause.pretty(cause) })
    }
  }

  private complete(client: Client, request: IoRequest, epoch: number, value: IoValue): boolean {
    switch (this.page.complete(request.vcpu, epoch, value)) {
      case "Stale":
        return false
      case "Foreign":
        this.events.report({ _tag: "ForeignStep", vcpu: request.vcpu, problem: this.page.problem })
        return false
      case "Completed":
        if (this.observers.hasAny) this.observers.tellCompletion(client.name, request, value)
        return true
    }
  }

  private answerConfigAddress(vcpu: number, request: IoRequest, value: number): void {
    this.page.answer(vcpu, value)
    if (this.observers.hasAny) this.observers.tellAnswer(CONFIG_ADDRESS, request, value)
  }

  private answerUnhandled(vcpu: number, request: IoRequest): void {
    this.unhandled++
    // Before the observers, which may do anything: reset the VM, so that the slot is the hypervisor's.
    this.page.answer(vcpu, undefined)
    if (this.observers.hasAny) this.observers.tellAnswer(NOBODY, request, undefined)
    this.events.report({ _tag: "Unhandled", request, nearest: this.routes.nearest(request) })
  }

  /** What of this dispatcher is shown beside its page. */
  readonly pageUse: PageUse = {
    holder: (vcpu) => this.holderOf(vcpu),
    ranges: () => this.routes.sorted,
    nearMisses: () => this.events.nearMisses
  }

  private holderOf(vcpu: number): Holder | undefined {
    return this.inFlight.holderOf(vcpu) ?? byHand(this.page, vcpu)
  }

  /** Who holds requests, a name for each: clients, and programs by hand. */
  private holders(): ReadonlyArray<string> {
    return this.inFlight.held.flatMap((_, vcpu) => this.holderOf(vcpu)?.client ?? [])
  }

  /** After the hypervisor cleared the slots: nothing of the old life completes in the new one. */
  readonly forgetAll: Effect.Effect<void> = Effect.suspend(() => {
    this.page.forgetAll()
    this.configAddress.reset()
    return this.abandonment.forgetHeld()
  })

  /** Holds new requests back until {@link resume} and waits for those that are held; `proceed` does not end it. */
  readonly pause = this.intake.pause

  /** A pause that did not come to be. */
  readonly unpause = this.intake.unpause

  readonly resume = this.intake.resume

  private makeService(): IoDispatcher["Service"] {
    const { clients, events, intake, observers, transitions } = this
    return IoDispatcher.of({
      register: clients.register,
      registerDefault: clients.registerDefault,
      counts: Effect.sync(() => [
        ...clients.counts,
        ...(this.unhandled === 0 ? [] : [{ client: NOBODY, requests: this.unhandled }])
      ]),
      recentEvents: Effect.sync(() => events.recent),
      events: events.stream,
      transitions: transitions.stream,
      transitionsLost: Effect.sync(() => transitions.lost),
      observe: observers.observe,
      drain: intake.drain,
      proceed: intake.proceed
    })
  }
}
