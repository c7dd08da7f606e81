/**
 * The first third of the seam: the door through which hypercalls pass, as an id and two words.
 *
 * The seam is the ABI's own: structures travel by Service VM address, so every test exercises the bytes, and a real
 * kernel driver can call a simulated hypervisor. Programs use the typed methods of `Hypercalls` above it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"

/**
 * One hypervisor's door.
 *
 * @category services
 * @since 0.1.0
 */
export class HypercallGate extends Context.Service<HypercallGate, {
  /** What this hypervisor can do, in numbers. */
  readonly profile: HypervisorProfile
  /**
   * Makes the hypercall `id` (`0x80 << 24 | number`) with two 64-bit parameters. The result is RAX as a signed number:
   * 0 or positive on success, a negative errno on refusal. It never fails as an Effect and never waits for an I/O
   * request's completion.
   */
  readonly call: (id: number, param1: bigint, param2: bigint) => Effect.Effect<number>
  /**
   * NOTIFY_REQUEST_FINISH without allocation, for the hot path. It only marks the vCPU runnable; running it from here
   * would recurse. The result is that of the hypercall.
   */
  readonly notifyFinish: (vmId: number, vcpu: number) => number
}>()("upcall/services/HypercallGate") {}
