/**
 * What went otherwise than it should: the last events, and the stream of those to come.
 */
import type { DispatchEvent } from "../../domain/DispatchEvent.ts"
import { Listeners } from "./Listeners.ts"
import type { NearMiss } from "./PageUse.ts"

const RECENT_EVENTS = 256
const STREAM_BUFFER = 1024
const SHOWN_NEAR_MISSES = 8

export class EventLog {
  private readonly events: Array<DispatchEvent> = []
  private readonly listeners = new Listeners<DispatchEvent>(STREAM_BUFFER)
  /** Events from now on. */
  readonly stream = this.listeners.stream

  report(event: DispatchEvent): void {
    if (this.events.length === RECENT_EVENTS) this.events.shift()
    this.events.push(event)
    this.listeners.tell(event)
  }

  /** The last events, oldest first. */
  get recent(): Array<DispatchEvent> {
    return [...this.events]
  }

  get nearMisses(): Array<NearMiss> {
    return this.events.flatMap((event) =>
      event._tag === "Unhandled" ? [{ request: event.request, nearest: event.nearest }] : []
    ).slice(-SHOWN_NEAR_MISSES)
  }
}
