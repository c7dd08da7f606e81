/**
 * Requests that are taken from their handlers by the close of a client or of the VM, or by a reset, and what then waits
 * for the handlers to end.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import type { Client } from "./Client.ts"
import type { EventLog } from "./EventLog.ts"
import type { InFlight } from "./InFlight.ts"
import type { Intake } from "./Intake.ts"
import { BY_HAND, type RequestPage } from "./RequestPage.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Handlers whose requests were taken away: those with a fiber, and those that are still being started. */
interface Abandoned {
  readonly fibers: ReadonlyArray<AnyFiber>
  readonly started: ReadonlyArray<Deferred.Deferred<void>>
}

interface Parts {
  readonly page: RequestPage
  readonly inFlight: InFlight
  readonly intake: Intake
  readonly events: EventLog
  /** Completes a claimed request; whether it was the claimed one still. */
  readonly complete: (client: Client, request: IoRequest, epoch: number, value: IoValue) => boolean
}

export class Abandonment {
  private readonly parts: Parts
  private leaving: Abandoned = { fibers: [], started: [] }

  constructor(parts: Parts) {
    this.parts = parts
  }

  /** Completes what a client holds with all-ones, at once; the Effect ends its handlers and waits for them. */
  endClient(client: Client, self: AnyFiber): Effect.Effect<void> {
    const abandoned = this.abandon(client, self.id)
    // Guard: cve-2021-36144
    if (abandoned.fibers.length > 0) return Effect.andThen(interruptOthers(abandoned.fibers), awaitStarted(abandoned))
    return awaitStarted(abandoned)
  }

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

  /** Takes what is held away, at once, without completing it; the Effect ends the handlers and waits for them. */
  forgetHeld(): Effect.Effect<void> {
    const { inFlight, intake } = this.parts
    const forgotten = inFlight.held.filter((held) => held !== undefined)
    for (const held of forgotten) inFlight.takeAway(held)
    intake.requestOver()
    return interruptOthers(forgotten.map(({ fiber }) => fiber))
  }

  /** Completes what a client holds (or every client, without one) with all-ones; the fibers are for the caller to end. */
  private abandon(client: Client | undefined, by: number): Abandoned {
    const { complete, events, inFlight, intake, page } = this.parts
    const started: Array<Deferred.Deferred<void>> = []
    // Guard: xen-f7039ee41b
    for (let vcpu = 0; vcpu < page.vcpus; vcpu++) {
      const held = inFlight.held[vcpu]
      if (held === undefined || (client !== undefined && held.client !== client)) continue
      inFlight.takeAway(held)
      complete(held.client, held.request, held.epoch, undefined)
      events.report({ _tag: "Abandoned", client: held.client.name, request: held.request })
    }
    // Guard: acrn-611944c01
    for (const starting of inFlight.starting) {
      const { client: owner, epoch, request } = starting
      if (owner === undefined || (client !== undefined && owner !== client)) continue
      started.push(inFlight.takeFromStarting(starting, by))
      if (complete(owner, request!, epoch, undefined)) {
        events.report({ _tag: "Abandoned", client: owner.name, request: request! })
      }
    }
    const fibers = inFlight.lateOf(client)
    intake.requestOver()
    return { fibers, started }
  }

  private abandonHandClaims(): void {
    const { events, page } = this.parts
    for (let vcpu = 0; vcpu < page.vcpus; vcpu++) {
      const claim = page.handClaim(vcpu)
      if (claim !== undefined && page.completeByHand(vcpu, claim.epoch, undefined) === "Completed") {
        events.report({ _tag: "Abandoned", client: BY_HAND, request: claim.request })
      }
    }
  }
}

/** A handler may close its own client or VM: it cannot wait for itself to end. */
const others = (fibers: ReadonlyArray<AnyFiber>, self: AnyFiber) => fibers.filter((fiber) => fiber.id !== self.id)

const awaitStarted = ({ started }: Abandoned): Effect.Effect<void> =>
  Effect.forEach(started, Deferred.await, { discard: true })

const interruptOthers = (fibers: ReadonlyArray<AnyFiber>): Effect.Effect<void> =>
  Effect.withFiber((self) => Fiber.interruptAll(others(fibers, self)))
