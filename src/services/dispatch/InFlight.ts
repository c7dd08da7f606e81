/**
 * The requests that clients have, one for each vCPU at most: those whose handlers are being started, those that are held
 * until their handlers end, and the handlers whose requests were taken away before they ended.
 */
import * as Deferred from "effect/Deferred"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import type { Client } from "./Client.ts"
import type { Holder } from "./PageUse.ts"
import { ageOf } from "./RequestPage.ts"

/** A request whose handler goes on in a fiber. */
export interface Held {
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

const NO_FIBER = -1

export class InFlight {
  readonly held: Array<Held | undefined>
  readonly starting: ReadonlyArray<Starting>
  /** Handlers whose request was taken away and that have not ended yet, with their clients. */
  private readonly late = new Map<Fiber.Fiber<unknown, unknown>, Client>()

  constructor(vcpus: number) {
    this.held = Array.from({ length: vcpus }, () => undefined)
    this.starting = Array.from({ length: vcpus }, () => ({
      client: undefined,
      request: undefined,
      epoch: 0,
      endedBy: NO_FIBER,
      ended: undefined
    }))
  }

  /** Its handler is about to be started. */
  start(vcpu: number, client: Client, request: IoRequest, epoch: number): void {
    const starting = this.starting[vcpu]!
    starting.client = client
    starting.request = request
    starting.epoch = epoch
  }

  /** Its handler has a result or a fiber, or is not started after all. */
  started(vcpu: number): void {
    this.starting[vcpu]!.client = undefined
  }

  /** Tells whoever took the request from the handler while it was started, and waits for that, that it has ended. */
  tellEnded(vcpu: number): void {
    if (this.starting[vcpu]!.ended !== undefined) this.takeEnded(vcpu)()
  }

  /** Ends the fiber of a handler whose request was taken away while it was started, when its fiber was not known yet. */
  endStarted(vcpu: number, client: Client, fiber: Held["fiber"]): void {
    const tellEnded = this.takeEnded(vcpu)
    // One that closed its own client or VM goes on: it may still be closing, and does not wait for itself.
    if (fiber.id === this.starting[vcpu]!.endedBy) return tellEnded()
    this.awaitEnd(client, fiber)
    fiber.addObserver(tellEnded)
    fiber.interruptUnsafe()
  }

  /** The fiber `by` takes a request from its handler; what is given back is told when the handler has ended. */
  takeFromStarting(starting: Starting, by: number): Deferred.Deferred<void> {
    starting.endedBy = by
    starting.ended ??= Deferred.makeUnsafe()
    return starting.ended
  }

  hold(client: Client, request: IoRequest, epoch: number, fiber: Held["fiber"]): Held {
    const since = client.clock.currentTimeMillisUnsafe()
    const held: Held = { client, request, epoch, fiber, since, timer: undefined }
    this.held[request.vcpu] = held
    return held
  }

  /** Its handler has ended; a request that was not held, or is another by now, is left as it is. */
  settle(vcpu: number, epoch: number): void {
    const held = this.held[vcpu]
    if (held !== undefined && held.epoch === epoch) this.letGo(held)
  }

  /** Takes a request from its handler, which has not ended. */
  takeAway(held: Held): void {
    this.letGo(held)
    this.awaitEnd(held.client, held.fiber)
  }

  /** Handlers of a client, or of all, whose requests were taken away and that have not ended yet. */
  lateOf(client: Client | undefined): Array<Fiber.Fiber<unknown, unknown>> {
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (const [fiber, owner] of this.late) {
      if (client === undefined || owner === client) fibers.push(fiber)
    }
    return fibers
  }

  holderOf(vcpu: number): Holder | undefined {
    const held = this.held[vcpu]
    if (held !== undefined) {
      return { client: held.client.name, request: held.request, ageMs: ageOf(held.client.clock, held.since) }
    }
    const { client, request } = this.starting[vcpu]!
    return client === undefined ? undefined : { client: client.name, request: request!, ageMs: undefined }
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

  /** A request is not in flight any more: nothing waits for its end or its deadline. */
  private letGo(held: Held): void {
    this.held[held.request.vcpu] = undefined
    const timer = held.timer
    held.timer = undefined
    timer?.interruptUnsafe()
  }

  /** Whoever closes the client waits for this handler, whoever told it to end. */
  private awaitEnd(client: Client, fiber: Fiber.Fiber<unknown, unknown>): void {
    this.late.set(fiber, client)
    fiber.addObserver(() => this.late.delete(fiber))
  }
}
