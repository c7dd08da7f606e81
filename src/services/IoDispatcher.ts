/**
 * Gives each request of one VM to the I/O client that owns its address: ports, MMIO and PCI functions, else to the
 * default client, else all-ones. One dispatcher per VM.
 *
 * A client is a name, ranges and a handler, which is an Effect. A handler that answers at once runs inside the
 * trapping vCPU's stack and costs a fraction of a microsecond; one that suspends goes on as a fiber of its client's
 * scope while other slots, clients and VMs go on.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { DispatchEvent } from "../domain/DispatchEvent.ts"
import * as IoRange from "../domain/IoRange.ts"
import type { IoRequest, IoValue } from "../domain/IoRequest.ts"
import type { RequestTransition } from "../domain/RequestState.ts"
import { INTERVAL } from "./dispatch/interval.ts"
import type { CapabilityError, DoorbellPlace, Doorbells, IrqFds, MsiMessage } from "./Hypervisor.ts"

/**
 * What a client is made of. `handle` answers a read with its value (bits above the access size are dropped; nothing at
 * all reads as all-ones) and may answer a write with anything. A failure or defect completes the request with all-ones
 * and is reported as an event.
 *
 * `deadline` is how long a request may be held: a positive, finite duration of the VM's time, or of the host's where the
 * VM has none of its own; default for ever. A request that was not answered by then is completed with all-ones (a
 * write is dropped), `DeadlinePassed` is told, and the handler is interrupted; what it answers later is nobody's. Where
 * guest time is virtual, a guest that waits for a request with nothing else to do waits no time of the host: there a
 * deadline bounds handlers that sleep, and ends those that wait for the host.
 *
 * A handler that cannot be interrupted delays neither the guest nor a pause once its request is over, but the close of
 * its client waits for it, however long: what it uses must not be released under it.
 *
 * @category models
 * @since 0.1.0
 */
export interface IoClientOptions<E = never, R = never> {
  readonly name: string
  readonly ranges: ReadonlyArray<IoRange.IoRange>
  readonly handle: (request: IoRequest) => Effect.Effect<IoValue, E, R>
  readonly deadline?: Duration.Input
}

/**
 * What a dispatcher calls for each request of a client, with all that the handler needs already given to it.
 *
 * @category models
 * @since 0.1.0
 */
export type RequestHandler = (request: IoRequest) => Effect.Effect<IoValue, unknown>

/**
 * What stands between a dispatcher and the handlers of clients that are registered with this in their context: for
 * tracing, and for tests that break a handler. It is asked once, when a client is registered, so a request pays nothing
 * for it. The default leaves handlers as they are.
 *
 * @category references
 * @since 0.1.0
 */
export const AroundHandlers = Context.Reference<(client: string, handle: RequestHandler) => RequestHandler>(
  "upcall/services/IoDispatcher/AroundHandlers",
  { defaultValue: () => (_client, handle) => handle }
)

/**
 * A registered client. Its ranges can be changed while it is registered, also from inside a handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface IoClient {
  readonly name: string
  /** Adds a range. Refused, with nothing changed, when another client owns an address of it. */
  readonly addRange: (range: IoRange.IoRange) => Effect.Effect<void, IoDispatcherError>
  /** Gives a range back; its addresses go to the default client from now on. */
  readonly removeRange: (range: IoRange.IoRange) => Effect.Effect<void, IoDispatcherError>
  /** Replaces one range by another in one step; when the new one is refused the old one stays. */
  readonly moveRange: (from: IoRange.IoRange, to: IoRange.IoRange) => Effect.Effect<void, IoDispatcherError>
  /**
   * Hangs a doorbell in a range of this client while the stream runs: a write of the guest there is counted by the
   * kernel and costs no request. An element is how often it rang since the one before, 1 at least. The stream ends when
   * the client gives that range back or moves it, when its scope closes, and with the VM. Refused when the place is not
   * wholly in one range of the client; without `bytes`, its first byte counts.
   */
  readonly doorbell: (place: DoorbellPlace) => Stream.Stream<bigint, CapabilityError | IoDispatcherError, Doorbells>
  /**
   * Interrupts the guest with this message once for each element, through an eventfd of the kernel. The sink is done,
   * at the element that comes next, once the client's scope is closed or the VM is gone.
   */
  readonly interrupts: (
    message: MsiMessage
  ) => Sink.Sink<void, unknown, never, CapabilityError | IoDispatcherError, IrqFds>
}

/**
 * How often a client was asked, in requests, since it was registered.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientCount {
  readonly client: string
  readonly requests: number
}

/**
 * - `Overlap`: another range owns an address of the one asked for; both owners are named, nothing was changed.
 * - `NoSuchRange`: the client does not own the range it wants to give back or move.
 * - `NotOwned`: the client wants a doorbell where neither it nor another client owns all addresses.
 * - `BadRange`: the range is none: out of its space, or its end lies before its start.
 * - `BadDeadline`: the client's deadline is not a positive, finite duration.
 * - `NoSuchLine`: a device asked for an interrupt line that the VM has not.
 * - `DefaultTaken`: the VM has a default client already.
 * - `Closed`: the client's scope was closed, it has no ranges any more.
 * - `DrainTimeout`: a client held a request for longer than the deadline; `(claimed by hand)` stands for a program that
 *   claimed one through `IoRequestBuffer`.
 *
 * @category errors
 * @since 0.1.0
 */
export const IoDispatcherErrorReason = Schema.TaggedUnion({
  Overlap: {
    client: Schema.String,
    range: IoRange.IoRange,
    owner: Schema.String,
    owned: IoRange.IoRange
  },
  NoSuchRange: { client: Schema.String, range: IoRange.IoRange },
  NotOwned: { client: Schema.String, range: IoRange.IoRange },
  BadRange: { client: Schema.String, problem: Schema.String },
  BadDeadline: { client: Schema.String, deadlineMs: Schema.Number },
  NoSuchLine: { client: Schema.String, line: Schema.Number, lines: Schema.Number },
  DefaultTaken: { client: Schema.String, owner: Schema.String },
  Closed: { client: Schema.String },
  DrainTimeout: { clients: Schema.Array(Schema.String), deadlineMs: Schema.Number }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type IoDispatcherErrorReason = typeof IoDispatcherErrorReason.Type

/**
 * A registration that was refused, or a client that did not answer in time.
 *
 * @category errors
 * @since 0.1.0
 */
export class IoDispatcherError
  extends Schema.TaggedError<IoDispatcherError>()("IoDispatcherError", { reason: IoDispatcherErrorReason })
{
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "Overlap":
        return `client "${reason.client}" cannot have ${IoRange.format(reason.range)}: client "${reason.owner}" ` +
          `owns ${IoRange.format(reason.owned)}; choose other addresses, or remove that range first`
      case "NoSuchRange":
        return `client "${reason.client}" does not own ${IoRange.format(reason.range)}; ` +
          "name a range exactly as it was registered"
      case "NotOwned":
        return `client "${reason.client}" cannot have a doorbell at ${IoRange.format(reason.range)}, which is not ` +
          "wholly in one range of it; add the range first"
      case "BadRange":
        return `client "${reason.client}" asked for a range that is none: ${reason.problem}; ` +
          "make ranges with IoRange.ports, mmio or pciFunction"
      case "BadDeadline":
        return `client "${reason.client}" asked for a deadline of ${reason.deadlineMs} ms; give ${INTERVAL}, ` +
          "or none to let it hold requests for ever"
      case "NoSuchLine":
        return `device "${reason.client}" cannot have interrupt line ${reason.line}: the VM has lines 0 to ` +
          `${reason.lines - 1}; choose one of them`
      case "DefaultTaken":
        return `client "${reason.client}" cannot be the default client: "${reason.owner}" is; ` +
          "a VM has one default client, close its scope first"
      case "Closed":
        return `client "${reason.client}" was closed with its scope and cannot have ranges; register it again`
      case "DrainTimeout":
        return `requests were still held after ${reason.deadlineMs} ms by ${reason.clients.join(", ")}; ` +
          "make these handlers answer, or close their clients"
    }
  }
}

/**
 * Dispatch of one VM's requests.
 *
 * @category services
 * @since 0.1.0
 */
export class IoDispatcher extends Context.Service<IoDispatcher, {
  /**
   * Registers a client until the scope closes; what it holds then is completed with all-ones and its fibers are ended
   * before the scope's close returns. Fails with `Overlap` when it asks for an address that a client owns.
   */
  readonly register: <E, R>(
    options: IoClientOptions<E, R>
  ) => Effect.Effect<IoClient, IoDispatcherError, R | Scope.Scope>
  /** Registers the client for everything that no range holds. A VM has one at most. */
  readonly registerDefault: <E, R>(
    options: Omit<IoClientOptions<E, R>, "ranges">
  ) => Effect.Effect<void, IoDispatcherError, R | Scope.Scope>
  /** Requests per client, in order of registration; the unhandled ones last, under `(nobody)`. */
  readonly counts: Effect.Effect<ReadonlyArray<ClientCount>>
  /** The last 256 events, oldest first. */
  readonly recentEvents: Effect.Effect<ReadonlyArray<DispatchEvent>>
  /** Events from now on; a slow reader keeps the newest 1024. */
  readonly events: Stream.Stream<DispatchEvent>
  /**
   * Steps of the slots that the Service VM takes, from now on, in batches: a reader gets all that came since its last
   * batch, in a turn of its own. One that falls more than 16,384 steps behind loses the oldest. Costs nothing while
   * nobody reads.
   */
  readonly transitions: Stream.Stream<RequestTransition>
  /**
   * How many steps the readers of `transitions` have lost since the VM was created, all of them together. What a reader
   * has not lost it has got, or will get next, in order.
   */
  readonly transitionsLost: Effect.Effect<number>
  /**
   * Calls back around each request until the scope closes: once it is read, and once it is completed, with its client's
   * name. Synchronous, in the trapping vCPU's stack; for measuring and recording. One that throws hears no more, and is
   * reported as an event.
   */
  readonly observe: (observer: RequestObserver) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Takes no new requests (they stay PENDING) and waits until none is held, by a client or by hand; the default deadline
   * is 1 second. Fails with `DrainTimeout`, and takes requests again unless another drain or a pause holds them back,
   * when a client does not answer.
   */
  readonly drain: (deadline?: Duration.Input) => Effect.Effect<void, IoDispatcherError>
  /**
   * Takes requests again after all drains, those that came meanwhile first; resuming and resetting the VM do so, too. It
   * does not end a pause: of a VM that is paused, or is being paused, nothing is taken until it is resumed or reset.
   */
  readonly proceed: Effect.Effect<void>
}>()("upcall/services/IoDispatcher") {}

/**
 * Hears of each request. `onComplete` gets what the guest will read, or `undefined` for a write.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestObserver {
  readonly onRequest?: (client: string, request: IoRequest) => void
  readonly onComplete?: (client: string, request: IoRequest, value: IoValue) => void
}
