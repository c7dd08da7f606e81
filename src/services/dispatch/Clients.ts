/**
 * The clients of a VM, each from its registration until its scope closes, and the handles by which programs change their
 * ranges.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { Errno } from "../../domain/Errno.ts"
import { type DoorbellPlace, Doorbells, type GuestTime, IrqFds } from "../Hypervisor.ts"
import {
  AroundHandlers,
  type ClientCount,
  type IoClient,
  type IoClientOptions,
  IoDispatcherError,
  type IoDispatcherErrorReason,
  type RequestHandler
} from "../IoDispatcher.ts"
import { Attachments } from "./Attachments.ts"
import type { Client, Deadline } from "./Client.ts"
import { inGuestTime } from "./guestContext.ts"
import { isInterval, millisOf } from "./interval.ts"
import type { Place, Routes } from "./Routes.ts"

type Unrouted<E, R> = Omit<IoClientOptions<E, R>, "ranges">

export class Clients {
  /** Gets what no range holds. */
  defaultClient: Client | undefined
  private readonly clients: Array<Client> = []
  private readonly routes: Routes
  private readonly guestTime: GuestTime | undefined
  private readonly end: (client: Client, self: Fiber.Fiber<unknown, unknown>) => Effect.Effect<void>
  private readonly vmId: number
  private readonly attachments = new Attachments()

  /** `end` completes what a client holds, at once; its Effect, run by `self`, ends the client's handlers. */
  constructor(
    routes: Routes,
    guestTime: GuestTime | undefined,
    end: (client: Client, self: Fiber.Fiber<unknown, unknown>) => Effect.Effect<void>,
    vmId: number
  ) {
    this.vmId = vmId
    this.routes = routes
    this.guestTime = guestTime
    this.end = end
  }

  /** Requests per client, in order of registration. */
  get counts(): Array<ClientCount> {
    return this.clients.map(({ name, requests }) => ({ client: name, requests }))
  }

  readonly register = <E, R>(options: IoClientOptions<E, R>) =>
    Effect.map(
      this.admit(options, (client) => this.routes.addAll(client, options.ranges)),
      (client): IoClient => this.handleOf(client)
    )

  readonly registerDefault = <E, R>(options: Unrouted<E, R>) =>
    Effect.asVoid(this.admit(options, (client) => {
      if (this.defaultClient !== undefined) {
        return { _tag: "DefaultTaken", client: client.name, owner: this.defaultClient.name }
      }
      this.defaultClient = client
      return undefined
    }))

  /** A client from when `claim` gave it its place, which it may refuse, until the scope closes. */
  private readonly admit = <E, R>(
    options: Unrouted<E, R>,
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

  private readonly enlist = <E, R>(options: Unrouted<E, R>) =>
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
      return Effect.andThen(this.attachments.endOf(client), this.end(client, self))
    })

  private handleOf(client: Client): IoClient {
    const attempt = (change: () => IoDispatcherErrorReason | undefined) =>
      Effect.suspend(() => {
        const refuse = (reason: IoDispatcherErrorReason) => Effect.fail(new IoDispatcherError({ reason }))
        // Guard: cve-2021-36145
        if (client.isRetired) return refuse({ _tag: "Closed", client: client.name })
        const refusal = change()
        return refusal === undefined ? Effect.void : refuse(refusal)
      })
    const endLost = this.attachments.endLost(client, (place) => this.routes.holds(client, place))
    return {
      name: client.name,
      addRange: (range) => attempt(() => this.routes.addAll(client, [range])),
      removeRange: (range) => Effect.andThen(attempt(() => this.routes.remove(client, range)), endLost),
      moveRange: (from, to) => Effect.andThen(attempt(() => this.routes.move(client, from, to)), endLost),
      doorbell: (place) =>
        Stream.unwrap(Effect.gen({ self: this }, function*() {
          const doorbells = yield* Doorbells
          const range = rangeOf(place)
          yield* attempt(() => this.routes.refusePlace(client, range))
          const scope = yield* this.attachments.attach(client, range)
          const { awaitRing } = yield* Scope.provide(doorbells.attach(this.vmId, place), scope)
          return Stream.fromEffectRepeat(awaitRing)
        })),
      interrupts: (message) =>
        Sink.unwrap(Effect.gen({ self: this }, function*() {
          const irqFds = yield* IrqFds
          yield* attempt(() => undefined)
          const scope = yield* this.attachments.attach(client, undefined)
          const { raise } = yield* Scope.provide(irqFds.attach(this.vmId, message), scope)
          return Sink.forEachWhile(() => Effect.sync(() => raise() !== -Errno.EBADF))
        }))
    }
  }
}

const rangeOf = ({ address, bytes = 1, space }: DoorbellPlace) =>
  ({ _tag: space, start: address, end: address + bytes - 1 }) as Place

const deadlineOf = (deadline: Duration.Input): Deadline => {
  const millis = millisOf(deadline)
  return { millis, wait: Effect.sleep(millis) }
}

const badDeadline = ({ deadline, name }: Client): IoDispatcherErrorReason | undefined =>
  deadline === undefined || isInterval(deadline.millis)
    ? undefined
    : { _tag: "BadDeadline", client: name, deadlineMs: deadline.millis }
