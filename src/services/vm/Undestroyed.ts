/**
 * VMs that the hypervisor refused to destroy. Their memory is kept, for their vCPUs may still use it, until the
 * hypervisor destroys them after all, or gives their id to another VM and so tells that they are no more.
 */
import * as Effect from "effect/Effect"
import type { HypercallError, Hypercalls } from "../Hypercalls.ts"

const ATTEMPTS = 3

/** Destroys a VM in any state. A pause that is refused proves nothing: it may be paused already. */
export const destroyWith = (
  hypercalls: Hypercalls["Service"],
  vmId: number
): Effect.Effect<void, HypercallError> =>
  Effect.retry(Effect.andThen(Effect.ignore(hypercalls.pauseVm(vmId)), hypercalls.destroyVm(vmId)), {
    times: ATTEMPTS - 1
  })

export class Undestroyed {
  private readonly hypercalls: Hypercalls["Service"]
  private readonly kept = new Map<number, Effect.Effect<void>>()

  constructor(hypercalls: Hypercalls["Service"]) {
    this.hypercalls = hypercalls
  }

  /** Keeps what `release` gives back. */
  keep(vmId: number, name: string, release: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.kept.set(vmId, release)
      return Effect.logWarning(`the memory of VM "${name}" is kept: its vCPUs may still use it`)
    })
  }

  /** The hypervisor made a VM of this id: the one that had it before is no more. */
  reissued(vmId: number): Effect.Effect<void> {
    return Effect.suspend(() => this.take(vmId) ?? Effect.void)
  }

  /** Tries once more to destroy what is left. */
  readonly retry: Effect.Effect<void> = Effect.uninterruptible(
    Effect.suspend(() =>
      Effect.forEach([...this.kept.keys()], (vmId) => {
        // Taken while it is tried, so that two who retry at once do not both give it back.
        const release = this.take(vmId)
        return release === undefined ? Effect.void : Effect.matchEffect(destroyWith(this.hypercalls, vmId), {
          onSuccess: () => release,
          onFailure: () => Effect.sync(() => this.kept.set(vmId, release))
        })
      }, { discard: true })
    )
  )

  private take(vmId: number): Effect.Effect<void> | undefined {
    const release = this.kept.get(vmId)
    this.kept.delete(vmId)
    return release
  }
}
