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
import type * as Stream from "effect/Stream"
import type { DispatchEvent } from "../domain/DispatchEvent.ts"
import * as IoRange from "../domain/IoRange.ts"
import type { IoRequest, IoValue } from "../domain/IoRequest.ts"
import type { RequestTransition } from "../domain/RequestState.ts"

/**
 * What a client is made of. `handle` answers a read with its value (bits above the access size are dropped; nothing at
 * all reads as all-ones) and may answer a write with anything. A failure or defect completes the request with all-ones
 * and is reported as an event.
 *
 * @category models
 * @since 0.1.0
 */
export interface IoClientOptions<E = never, R = never> {
  readonly name: string
  readonly ranges: ReadonlyArray<IoRange.IoRange>
  readonly handle: (request: IoRequest) => Effect.Effect<IoValue, E, R>
}

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
 * - `BadRange`: the range is none: out of its space, or its end lies before its start.
 * - `NoSuchLine`: a device asked for an interrupt line that the VM has not.
 * - `DefaultTaken`: the VM has a default client already.
 * - `Closed`: the client's scope was closed, it has no ranges any more.
 * - `DrainTimeout`: a client held a request for longer than the deadline.
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
  BadRange: { client: Schema.String, problem: Schema.String },
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
      case "BadRange":
        return `client "${reason.client}" asked for a range that is none: ${reason.problem}; ` +
          "make ranges with IoRange.ports, mmio or pciFunction"
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
  /** Steps of the slots that the Service VM takes, from now on. Costs nothing while nobody reads. */
  readonly transitions: Stream.Stream<RequestTransition>
  /**
   * Calls back around each request until the scope closes: once it is read, and once it is completed, with its client's
   * name. Synchronous, in the trapping vCPU's stack; for measuring and recording. One that throws hears no more, and is
   * reported as an event.
   */
  readonly observe: (observer: RequestObserver) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Takes no new requests (they stay PENDING) and waits until none is held; the default deadline is 1 second. Fails
   * with `DrainTimeout`, and takes requests again unless another drain holds them, when a client does not answer.
   */
  readonly drain: (deadline?: Duration.Input) => Effect.Effect<void, IoDispatcherError>
  /** Takes requests again after a drain, those that came meanwhile first. */
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
