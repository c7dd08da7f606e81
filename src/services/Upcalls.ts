/**
 * The last third of the seam: "look at the page", from the hypervisor to the Service VM.
 *
 * An upcall may come late, merged or doubled; it carries an untrusted hint at most. Its handler runs synchronously in
 * the stack of the vCPU that trapped, as an interrupt handler would, which is what makes a trip cheap.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * Where the hypervisor believes the news is. It is a hint: never trust it, look at the page.
 *
 * @category models
 * @since 0.1.0
 */
export interface UpcallHint {
  readonly vmId: number
  readonly vcpu: number
}

/**
 * Called with a hint to look at one slot, without one to scan every VM.
 *
 * @category models
 * @since 0.1.0
 */
export type UpcallHandler = (hint: UpcallHint | undefined) => void

/**
 * Upcalls as a synchronous interrupt registration and, built on it, as a Stream.
 *
 * @category services
 * @since 0.1.0
 */
export class Upcalls extends Context.Service<Upcalls, {
  /**
   * Arms a handler until the scope closes. It is called once without a hint right away, so that nothing that came
   * before is missed. It is not re-entrant: an upcall that comes inside it is served, merged, after it.
   */
  readonly register: (handler: UpcallHandler) => Effect.Effect<void, never, Scope.Scope>
  /** Hints as they come, for observers; a slow reader keeps the newest 1024. */
  readonly stream: Stream.Stream<UpcallHint | undefined>
}>()("upcall/services/Upcalls") {}

// Handlers that come or go while these are called do not disturb the round.
const callAll = (handlers: ReadonlyArray<UpcallHandler>, hint: UpcallHint | undefined): void => {
  for (let i = 0; i < handlers.length; i++) {
    // Guard: acrn-kernel-247
    try {
      handlers[i]!(hint)
    } catch (defect) {
      // A handler must not throw. The others, and with them the VMs behind them, still hear of the upcall.
      callAll(handlers.slice(i + 1), hint)
      throw defect
    }
  }
}

/**
 * The hypervisor's end of the line, for writers of layers: `raise` is what the hypervisor calls, `service` what it
 * provides.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (): { readonly raise: UpcallHandler; readonly service: Upcalls["Service"] } => {
  let handlers: ReadonlyArray<UpcallHandler> = []
  let inside = false
  let again = false

  const raise: UpcallHandler = (hint) => {
    // Guard: qemu-556
    if (inside) {
      again = true
      return
    }
    inside = true
    try {
      callAll(handlers, hint)
      while (again) {
        again = false
        callAll(handlers, undefined)
      }
    } finally {
      inside = false
    }
  }

  const register = (handler: UpcallHandler) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        handlers = [...handlers, handler]
        raise(undefined)
      }),
      () =>
        Effect.sync(() => {
          // This registration alone: the same handler may have been armed twice.
          handlers = handlers.toSpliced(handlers.indexOf(handler), 1)
        })
    )

  const stream = Stream.callback<UpcallHint | undefined>(
    (queue) => register((hint) => Queue.offerUnsafe(queue, hint)),
    { bufferSize: 1024, strategy: "sliding" }
  )

  return { raise, service: Upcalls.of({ register, stream }) }
}
