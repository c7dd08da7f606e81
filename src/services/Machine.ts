/**
 * One VM as its device models see it: where to register for requests, the guest's memory, the guest's time, and how to
 * say that the guest is done.
 *
 * A device is `make(options): Effect<Device, XError, Scope | Machine>`; a VM's `attach` gives it both. Code that a
 * device runs through {@link Machine.fork} and in its handlers sees the guest's Clock: `Effect.sleep` there is guest
 * time.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { VmId } from "../domain/Address.ts"
import type { EndReason } from "../domain/EndReason.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import type { GuestTime } from "./Hypervisor.ts"
import type { IoDispatcher } from "./IoDispatcher.ts"

/**
 * The service of one VM, for devices.
 *
 * @category services
 * @since 0.1.0
 */
export class Machine extends Context.Service<Machine, {
  readonly vmId: VmId
  readonly name: string
  readonly vcpus: number
  /** RAM that the VM was created with, in bytes. */
  readonly memoryBytes: number
  readonly io: IoDispatcher["Service"]
  readonly memory: GuestMemory["Service"]
  readonly time: GuestTime
  /** Starts a fiber at once, in guest time, that ends with the scope. */
  readonly fork: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<Fiber.Fiber<A, E>, never, R | Scope.Scope>
  /** Runs `effect` at each reset of the VM until the scope closes: what a device does when its reset line is pulled. */
  readonly onReset: (effect: Effect.Effect<void>) => Effect.Effect<void, never, Scope.Scope>
  /** Tells the VM's owner that the guest is done. The first reason of a life counts. */
  readonly end: (reason: EndReason) => Effect.Effect<void>
}>()("upcall/services/Machine") {}
