/**
 * The emulated hypervisor: real 32-bit x86 guests, Linux among them, on the CPU core of v86 (WebAssembly), in this
 * process, on any operating system, in Node.js or a browser, with no privileges.
 *
 * One VM has one vCPU and one block of RAM from guest address 0; its MMIO is 0xA0000 to 0xBFFFF and everything from the
 * end of RAM on. The core has the PC's pair of 8259 interrupt controllers inside. A handler that suspends lets the CPU
 * wait in the middle of the instruction, without a thread (JSPI: Node.js 24 or newer, current Chromium).
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { AddressSpace, type Backing, localBacking, makeServiceMemory } from "../services/AddressSpace.ts"
import type { Hypervisor } from "../services/Hypervisor.ts"
import { type MemoryPurpose, ServiceMemoryError } from "../services/ServiceMemory.ts"
import * as Upcalls from "../services/Upcalls.ts"
import { MAX_MEMORY_BYTES } from "./emulated/Cpu.ts"
import { CpuError } from "./emulated/CpuError.ts"
import * as CpuModule from "./emulated/CpuModule.ts"
import { type EmulationOptions, Engine } from "./emulated/Engine.ts"
import { HypervisorModel } from "./model/HypervisorModel.ts"
import { findBadOption, MAX_EPOCH_MS, MAX_SEED, MIN_SEED } from "./model/options.ts"
import { DEFAULT_EPOCH_MS, type ModelCapabilities, provide } from "./model/provide.ts"
import { seededRandom } from "./model/seededRandom.ts"

/**
 * - `clock`: `Real` (default) is the host's time while the VM runs; `Virtual` is counted in instructions, with idle time
 *   skipped, so that the same guest, devices and seed give the same run to the bit.
 * - `seed`: for the guest's RDRAND under the virtual clock: -2^31 to 2^32 - 1, 0 being the same as 1; default 1.
 * - `epochMs`: wall-clock time of each VM's start under the virtual clock, in milliseconds since 1970; default
 *   2026-01-01T00:00:00Z.
 * - `wasm`: the bytes of `build/v86.wasm` of npm package `v86`, checked by digest. Needed in a browser; elsewhere the
 *   installed package is read.
 * - `maxVms`: VMs at once, 1 to 1024, default 64.
 *
 * @category models
 * @since 0.1.0
 */
export interface EmulatedOptions {
  readonly clock?: "Real" | "Virtual"
  readonly seed?: number
  readonly epochMs?: number
  readonly wasm?: Uint8Array
  readonly maxVms?: number
}

/**
 * The capabilities that Emulated has beside the seam.
 *
 * @category models
 * @since 0.1.0
 */
export type Capabilities = ModelCapabilities

/**
 * - `Unavailable`: this process cannot run the emulated CPU, `problem` says what is missing.
 * - `BadOption`: an option is not what it must be; nothing was built.
 *
 * @category errors
 * @since 0.1.0
 */
export const EmulatedErrorReason = Schema.TaggedUnion({
  Unavailable: { problem: Schema.String },
  BadOption: { option: Schema.String, value: Schema.Number, expected: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type EmulatedErrorReason = typeof EmulatedErrorReason.Type

/**
 * The layer could not be built.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmulatedError extends Schema.TaggedError<EmulatedError>()("EmulatedError", {
  reason: EmulatedErrorReason
}) {
  override get message(): string {
    const reason = this.reason
    return reason._tag === "Unavailable"
      ? `the emulated hypervisor is not available: ${reason.problem}`
      : `the emulated hypervisor's option ${reason.option} is ${reason.value} but must be ${reason.expected}`
  }
}

const profile: HypervisorProfile = {
  name: "emulated",
  maxVcpus: 1,
  maxRamBytes: MAX_MEMORY_BYTES,
  addressBits: 32,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4],
  mapping: "OneBlockFromZero",
  modes: ["Real", "Protected32"],
  startsAllVcpus: true
}

interface Host {
  readonly performance: { readonly now: () => number }
  readonly crypto: { readonly getRandomValues: (words: Int32Array) => Int32Array }
}

const hostRandom = (): number => (globalThis as unknown as Host).crypto.getRandomValues(new Int32Array(1))[0]!

const unavailable = (cause: unknown) =>
  new EmulatedError({
    reason: { _tag: "Unavailable", problem: cause instanceof Error ? cause.message : String(cause) }
  })

/**
 * An emulated hypervisor with options of its own. Each call makes another hypervisor: keep the layer in a constant.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: EmulatedOptions): Layer.Layer<Hypervisor | Capabilities, EmulatedError> =>
  Layer.effectContext(makeContext(options))

const makeContext = (options: EmulatedOptions): Effect.Effect<
  Context.Context<Hypervisor | Capabilities>,
  EmulatedError,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const { wasm } = options
    const bad = findBadOption([
      ["seed", options.seed, MIN_SEED, MAX_SEED],
      ["maxVms", options.maxVms, 1, 1024],
      ["epochMs", options.epochMs, 0, MAX_EPOCH_MS]
    ])
    if (bad !== undefined) return yield* new EmulatedError({ reason: { _tag: "BadOption", ...bad } })
    const module = yield* Effect.tryPromise({
      try: () => wasm === undefined ? CpuModule.installed() : CpuModule.compile(wasm),
      catch: unavailable
    })
    const clock = options.clock ?? "Real"
    const epochMs = clock === "Real" ? yield* Clock.currentTimeMillis : options.epochMs ?? DEFAULT_EPOCH_MS
    const emulation = (): EmulationOptions => ({
      clock,
      epochMs,
      hostMs: () => (globalThis as unknown as Host).performance.now(),
      random: clock === "Real" ? hostRandom : seededRandom(options.seed ?? 1)
    })
    const space = new AddressSpace()
    const engines = new Map<number, Engine>()
    const memory = makeServiceMemory(space, (bytes, purpose) => back(engines, bytes, purpose))
    const upcalls = Upcalls.make()
    const host = {
      module,
      raise: upcalls.raise,
      scheduler: yield* Scheduler.Scheduler,
      launch: Effect.runForkWith(yield* Effect.context()),
      isRegion: (address: number, backing: Backing) => space.find(address, backing.bytes)?.backing === backing,
      forget: (vmId: number) => {
        engines.delete(vmId)
      }
    }
    const model = new HypervisorModel({
      profile,
      memory,
      maxVms: options.maxVms ?? 64,
      configuredVcpus: 1,
      makeEngine: (engineOptions) => {
        const engine = new Engine(engineOptions, emulation(), host)
        engines.set(engineOptions.vmId, engine)
        return engine
      }
    })
    yield* Effect.addFinalizer(() => model.shutdown)
    return provide(profile, memory, upcalls.service, model)
  })

/** Guest RAM is the memory of its VM's CPU; all else is ordinary memory of this thread. */
const back = (
  engines: ReadonlyMap<number, Engine>,
  bytes: number,
  purpose: MemoryPurpose
): Result.Result<Backing, ServiceMemoryError> => {
  if (purpose._tag !== "GuestRam") return Result.succeed(localBacking(bytes))
  const engine = engines.get(purpose.vmId)
  const refuse = (problem: string) =>
    Result.fail(new ServiceMemoryError({ reason: { _tag: "BadRequest", bytes, problem } }))
  if (engine === undefined) return refuse(`there is no VM ${purpose.vmId}`)
  try {
    const backing = engine.makeRam(bytes)
    return backing === undefined
      ? refuse("an emulated VM has one block of RAM, and this one has it already")
      : Result.succeed(backing)
  } catch (cause) {
    if (cause instanceof CpuError) return refuse(cause.message)
    throw cause
  }
}

/**
 * The emulated hypervisor with its defaults: real time.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Hypervisor | Capabilities, EmulatedError> = layerWith({})
