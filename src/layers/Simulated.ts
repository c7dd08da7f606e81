/**
 * The simulated hypervisor: ACRN's rules for every hypercall, a page-granular memory map, and up to 16 vCPUs that
 * execute a small subset of real x86, in 32-bit and in real mode, from guest memory. Everything is deterministic: guest time is counted in
 * instructions, and the order of vCPUs follows from a seed.
 *
 * Use it to test device models and programs, with thousands of VMs a second and no privileges. Guests that need more
 * than the subset run on `Emulated`. {@link layerOver} serves a Service VM that is not this program: its own kernel makes
 * the hypercalls, in memory of its own.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { ADDRESS_SPACE_END, MAX_VCPUS, PAGE_BYTES } from "../domain/Limits.ts"
import {
  AddressSpace,
  localBacking,
  makeServiceMemory,
  type RawBacking,
  sharedBacking
} from "../services/AddressSpace.ts"
import type { Hypervisor } from "../services/Hypervisor.ts"
import { type MemoryPurpose, ServiceMemoryError } from "../services/ServiceMemory.ts"
import * as Upcalls from "../services/Upcalls.ts"
import { backUpTo } from "./model/backUpTo.ts"
import { HypervisorModel } from "./model/HypervisorModel.ts"
import { findBadOption, MAX_EPOCH_MS, MAX_SEED, MIN_SEED } from "./model/options.ts"
import { DEFAULT_EPOCH_MS, type ModelCapabilities, provide } from "./model/provide.ts"
import { Engine } from "./simulated/Engine.ts"
import type { PageSource } from "./simulated/GuestPages.ts"

/**
 * - `seed`: decides the order of a VM's vCPUs: -2^31 to 2^32 - 1, 0 being the same as 1; default 1.
 * - `completion`: how the hypervisor hears of completed requests: `Notify` (default) waits for NOTIFY_REQUEST_FINISH,
 *   `Polling` spins on the slot's state.
 * - `maxVms`: VMs at once, 1 to 1024, default 256.
 * - `configuredVcpus`: vCPUs of a VM that is created with an empty CPU affinity, 1 to 16, default 1.
 * - `maxRamBytes`: the most RAM of one VM, 4096 to 2^52, default 1 GiB.
 * - `epochMs`: wall-clock time of each VM's start, in milliseconds since 1970; default 2026-01-01T00:00:00Z.
 * - `destroyRunning`: what DESTROY_VM does with a VM that is not paused. `Refuse` (default) is ACRN's rule. `Stop`
 *   destroys it all the same, a deviation for the Linux driver: it asks once when a client's file is closed, also while
 *   the VM runs or was never started, ignores the refusal, and frees what the hypervisor still uses.
 *
 * @category models
 * @since 0.1.0
 */
export interface SimulatedOptions {
  readonly seed?: number
  readonly completion?: "Notify" | "Polling"
  readonly maxVms?: number
  readonly configuredVcpus?: number
  readonly maxRamBytes?: number
  readonly epochMs?: number
  readonly destroyRunning?: "Refuse" | "Stop"
}

/**
 * The capabilities that Simulated has beside the seam.
 *
 * @category models
 * @since 0.1.0
 */
export type Capabilities = ModelCapabilities

/**
 * `BadOption`: an option is not what it must be; nothing was built.
 *
 * @category errors
 * @since 0.1.0
 */
export const SimulatedErrorReason = Schema.TaggedUnion({
  BadOption: { option: Schema.String, value: Schema.Number, expected: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type SimulatedErrorReason = typeof SimulatedErrorReason.Type

/**
 * The layer could not be built.
 *
 * @category errors
 * @since 0.1.0
 */
export class SimulatedError extends Schema.TaggedError<SimulatedError>()("SimulatedError", {
  reason: SimulatedErrorReason
}) {
  override get message(): string {
    const { expected, option, value } = this.reason
    return `the simulated hypervisor's option ${option} is ${value} but must be ${expected}`
  }
}

const check = (options: SimulatedOptions): Effect.Effect<void, SimulatedError> => {
  const bad = findBadOption([
    ["seed", options.seed, MIN_SEED, MAX_SEED],
    ["maxVms", options.maxVms, 1, 1024],
    ["configuredVcpus", options.configuredVcpus, 1, MAX_VCPUS],
    ["maxRamBytes", options.maxRamBytes, PAGE_BYTES, ADDRESS_SPACE_END],
    ["epochMs", options.epochMs, 0, MAX_EPOCH_MS]
  ])
  return bad === undefined
    ? Effect.void
    : Effect.fail(new SimulatedError({ reason: { _tag: "BadOption", ...bad } }))
}

const profileOf = (options: SimulatedOptions): HypervisorProfile => ({
  name: "simulated",
  maxVcpus: MAX_VCPUS,
  maxRamBytes: options.maxRamBytes ?? 2 ** 30,
  addressBits: 52,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4],
  mapping: "Pages",
  modes: ["Real", "Protected32"],
  startsAllVcpus: true
})

/**
 * A simulated hypervisor with options of its own. Each call makes another hypervisor: keep the layer in a constant.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: SimulatedOptions): Layer.Layer<Hypervisor | Capabilities, SimulatedError> =>
  Layer.effectContext(Effect.andThen(check(options), makeOwning(options)))

/**
 * A simulated hypervisor under memory that somebody else owns and lays out: a Service VM whose own kernel makes the
 * hypercalls, such as the real Linux driver. `space` may be filled in after the layer was built, when that kernel has
 * booted, by `insertAt`; whoever fills it in passes the kernel's calls to the `HypercallGate` and its interrupt to the
 * `Upcalls`. Nothing is read or written there but what calls name, and nothing of a VM after its DESTROY_VM returned.
 *
 * Programs above this layer cannot allocate memory, and so cannot create VMs of their own: every allocation fails with
 * a `ServiceMemoryError` that says so.
 *
 * **Example** (Memory that comes later)
 *
 * ```ts
 * const space = new AddressSpace<RawBacking>()
 * const hypervisor = Simulated.layerOver(space, { destroyRunning: "Stop" })
 * // ... once the kernel has booted, and its memory is mapped:
 * space.insertAt(0, rawBacking(new Uint8Array(mapping)))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerOver = (
  space: AddressSpace<RawBacking>,
  options: SimulatedOptions = {}
): Layer.Layer<Hypervisor | Capabilities, SimulatedError> =>
  Layer.effectContext(Effect.andThen(check(options), makeContext(options, space, refuseToAllocate)))

const refuseToAllocate = (bytes: number): Result.Result<never, ServiceMemoryError> =>
  Result.fail(
    new ServiceMemoryError({
      reason: {
        _tag: "BadRequest",
        bytes,
        problem: "this memory belongs to the Service VM's own kernel, which alone can allocate it"
      }
    })
  )

const makeOwning = (options: SimulatedOptions) => {
  const available = profileOf(options).maxRamBytes
  // RAM is read and written as bytes, where both kinds are as fast, and the shared one is made faster.
  const back = backUpTo(
    available,
    (bytes, purpose) => purpose._tag === "GuestRam" ? sharedBacking(bytes) : localBacking(bytes)
  )
  return makeContext(options, new AddressSpace<RawBacking>(), back)
}

const makeContext = (
  options: SimulatedOptions,
  space: AddressSpace<RawBacking>,
  back: (bytes: number, purpose: MemoryPurpose) => Result.Result<RawBacking, ServiceMemoryError>
): Effect.Effect<Context.Context<Hypervisor | Capabilities>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const profile = profileOf(options)
    const memory = makeServiceMemory(space, back)
    const upcalls = Upcalls.make()
    const hostScheduler = yield* Scheduler.Scheduler
    const launch = Effect.runForkWith(yield* Effect.context())
    const pages: PageSource = {
      page: (address) => {
        const region = space.find(address, PAGE_BYTES)
        if (region === undefined) return undefined
        const offset = address - region.start
        return region.backing.raw.subarray(offset, offset + PAGE_BYTES)
      },
      holds: (address, bytes) => space.holds(address, bytes)
    }
    const simulation = {
      seed: options.seed ?? 1,
      epochMs: options.epochMs ?? DEFAULT_EPOCH_MS,
      isPolling: options.completion === "Polling"
    }
    const model = new HypervisorModel({
      profile,
      memory,
      maxVms: options.maxVms ?? 256,
      configuredVcpus: options.configuredVcpus ?? 1,
      destroyRunning: options.destroyRunning,
      makeEngine: (engine) => new Engine(engine, simulation, pages, upcalls.raise, hostScheduler, launch)
    })
    yield* Effect.addFinalizer(() => model.shutdown)
    return provide(profile, memory, upcalls.service, model)
  })

/**
 * The simulated hypervisor with its defaults.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Hypervisor | Capabilities> = Layer.effectContext(makeOwning({}))
