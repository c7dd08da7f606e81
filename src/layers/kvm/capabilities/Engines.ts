/**
 * The VMs of a layer, as its capabilities find them and hang things on them.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { CapabilityError } from "../../../services/Hypervisor.ts"
import { noVm, refused } from "../../native/refused.ts"
import type { Engine } from "../Engine.ts"

export type Engines = Pick<ReadonlyMap<number, Engine>, "get">

export const findVm = (
  engines: Engines,
  capability: string,
  vmId: number
): Effect.Effect<Engine, CapabilityError> =>
  Effect.suspend(() => {
    const engine = engines.get(vmId)
    return engine === undefined ? noVm(capability, vmId) : Effect.succeed(engine)
  })

export interface Attachment {
  readonly capability: string
  readonly vmId: number
  /** Asks the kernel: 0 or positive, or a negative errno with nothing changed. */
  readonly on: (engine: Engine) => number
  readonly off: (engine: Engine) => void
  /** The VM was destroyed, and `off` will not be called. */
  readonly end?: () => void
  /** What a negative errno means, and what to do. */
  readonly explain: (errno: number) => string
}

/** What the kernel was asked for, until the scope closes or the VM is destroyed. */
export const attach = (
  engines: Engines,
  { capability, end = () => undefined, explain, off, on, vmId }: Attachment
): Effect.Effect<Engine, CapabilityError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.flatMap(findVm(engines, capability, vmId), (engine) => {
      const result = on(engine)
      if (result < 0) return refused(capability, vmId, result, explain(-result))
      engine.atEnd.add(end)
      return Effect.succeed(engine)
    }),
    (engine) =>
      Effect.sync(() => {
        engine.atEnd.delete(end)
        if (engines.get(vmId) === engine) off(engine)
      })
  )
