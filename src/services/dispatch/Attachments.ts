/**
 * What of the kernel hangs on the clients of a VM: doorbells, each at a place in a range of its client, and interrupts.
 * An attachment lives in a scope of its own, which ends with whoever asked for it, with the client's range, or with the
 * client, whatever is first. The hypervisor layer ends what hangs on a VM that it destroys.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Client } from "./Client.ts"
import type { Place } from "./Routes.ts"

interface Attachment {
  readonly client: Client
  /** Where it hangs; `undefined` is nowhere. */
  readonly place: Place | undefined
  readonly scope: Scope.Closeable
}

export class Attachments {
  private readonly all = new Set<Attachment>()

  /** The scope of a new attachment, which ends no later than that of the caller. */
  attach(client: Client, place: Place | undefined): Effect.Effect<Scope.Scope, never, Scope.Scope> {
    return Effect.map(
      Effect.acquireRelease(
        Effect.map(Scope.make(), (scope): Attachment => {
          const attachment = { client, place, scope }
          this.all.add(attachment)
          return attachment
        }),
        (attachment) => this.end(attachment)
      ),
      ({ scope }) => scope
    )
  }

  /** Ends those of a client that hang where it owns nothing any more. */
  endLost(client: Client, owns: (place: Place) => boolean): Effect.Effect<void> {
    return this.endWhere((each) => each.client === client && each.place !== undefined && !owns(each.place))
  }

  endOf(client: Client): Effect.Effect<void> {
    return this.endWhere((each) => each.client === client)
  }

  private endWhere(isMeant: (attachment: Attachment) => boolean): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach([...this.all].filter(isMeant), (each) => this.end(each), { discard: true })
    )
  }

  private end(attachment: Attachment): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.all.delete(attachment)
      return Scope.close(attachment.scope, Exit.void)
    })
  }
}
