/**
 * Who hears of each request, synchronously. They run in the stack of the vCPU that asks, and may do anything.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import * as SlotWords from "../../domain/SlotWords.ts"
import type { RequestObserver } from "../IoDispatcher.ts"
import type { EventLog } from "./EventLog.ts"

export class Observers {
  private observers: ReadonlyArray<RequestObserver> = []
  private readonly events: EventLog

  constructor(events: EventLog) {
    this.events = events
  }

  /** To be asked before any is told: with none, a request costs this one comparison. */
  get hasAny(): boolean {
    return this.observers.length > 0
  }

  /** An observer from now until the scope closes. */
  readonly observe = (observer: RequestObserver): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        this.observers = [...this.observers, observer]
      }),
      () => Effect.sync(() => this.remove(observer))
    )

  /** A request was read, and will be its client's. */
  tellRequest(client: string, request: IoRequest): void {
    this.tell((observer) => observer.onRequest?.(client, request))
  }

  tellCompletion(client: string, request: IoRequest, value: IoValue): void {
    const read = SlotWords.guestReads(request, value)
    this.tell((observer) => observer.onComplete?.(client, request, read))
  }

  /** Both at once for each: one that came because of the first half must not hear the second alone. */
  tellAnswer(client: string, request: IoRequest, value: IoValue): void {
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
        this.remove(observer)
        this.events.report({ _tag: "ObserverFailed", problem: String(defect) })
      }
    }
  }

  private remove(observer: RequestObserver): void {
    this.observers = this.observers.filter((other) => other !== observer)
  }
}
