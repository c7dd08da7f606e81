/**
 * Linux KVM: guests on the processor's own virtualization.
 *
 * It needs Linux on x86-64, the right to open /dev/kvm, and `koffi` installed beside `upcall`; `upcall doctor` tells
 * what is missing. A program that ran on `Simulated` or `Emulated` runs here by changing the layer.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { totalmem } from "node:os"
import process from "node:process"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../domain/Limits.ts"
import { AddressSpace, localBacking, makeServiceMemory, type RawBacking, rawBacking } from "../services/AddressSpace.ts"
import type { Hypervisor } from "../services/Hypervisor.ts"
import { type MemoryPurpose, ServiceMemoryError } from "../services/ServiceMemory.ts"
import * as Upcalls from "../services/Upcalls.ts"
import { Engine } from "./kvm/Engine.ts"
import type { HostRun } from "./kvm/GuestSlots.ts"
import { InlinePlacement } from "./kvm/InlinePlacement.ts"
import { KvmError, type KvmErrorReason } from "./kvm/KvmError.ts"
import { type KvmSystem, openSystem } from "./kvm/KvmSystem.ts"
import { VmFile } from "./kvm/VmFile.ts"
import { HypervisorModel } from "./model/HypervisorModel.ts"
import { findBadOption } from "./model/options.ts"
import { type ModelCapabilities, provide } from "./model/provide.ts"
import { type Libc, loadLibc } from "./native/Libc.ts"
import { sharedPages } from "./native/sharedPages.ts"

export { KvmError, KvmErrorReason } from "./kvm/KvmError.ts"

/**
 * - `device`: the device file, default /dev/kvm.
 * - `maxVms`: VMs at once, 1 to 1024, default 256.
 * - `configuredVcpus`: vCPUs of a VM that is created with an empty CPU affinity, 1 to 16, default 1.
 * - `interruptController`: `Kernel` (default) has the kernel's pair of 8259s, I/O APIC and local APICs; with `None`
 *   there are no interrupts, and HLT ends the guest at once.
 *
 * @category models
 * @since 0.1.0
 */
export interface KvmOptions {
  readonly device?: string
  readonly maxVms?: number
  readonly configuredVcpus?: number
  readonly interruptController?: "Kernel" | "None"
}

/**
 * The capabilities that KVM has beside the seam.
 *
 * @category models
 * @since 0.1.0
 */
export type Capabilities = ModelCapabilities

const DEVICE = "/dev/kvm"

const fail = (reason: KvmErrorReason) => Effect.fail(new KvmError({ reason }))

/** Nothing is asked of koffi on a machine where there can be no KVM. */
const load: Effect.Effect<Libc, KvmError> = Effect.suspend(() =>
  process.platform !== "linux" || process.arch !== "x64"
    ? fail({ _tag: "WrongPlatform", platform: `${process.platform} on ${process.arch}` })
    : Effect.tryPromise({
      try: loadLibc,
      catch: (cause) => new KvmError({ reason: { _tag: "NoFfi", problem: String(cause) } })
    })
)

const profileOf = ({ addressBits, maxVcpus }: KvmSystem): HypervisorProfile => ({
  name: "kvm",
  maxVcpus: Math.min(MAX_VCPUS, maxVcpus),
  maxRamBytes: Math.floor(totalmem() / PAGE_BYTES) * PAGE_BYTES,
  addressBits,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4, 8],
  mapping: "Pages",
  modes: ["Real", "Protected32", "Long64"],
  startsAllVcpus: true
})

interface KvmBacking extends RawBacking {
  /** Where it is in this process, of memory that a guest can be given. */
  readonly hostAddress: number | undefined
}

const backingFor = (libc: Libc, bytes: number, purpose: MemoryPurpose): KvmBacking => {
  if (purpose._tag !== "GuestRam") return { ...localBacking(bytes), hostAddress: undefined }
  const raw = sharedPages(libc, bytes)
  return { ...rawBacking(raw), hostAddress: libc.addressOf(raw) }
}

/** The runs of this process's memory behind a run of service addresses. */
const hostRunsIn = (space: AddressSpace<KvmBacking>) => (address: number, bytes: number) => {
  const runs: Array<HostRun> = []
  for (let at = address; at < address + bytes;) {
    const region = space.find(at, 1)
    if (region?.backing.hostAddress === undefined) return undefined
    const size = Math.min(region.end, address + bytes) - at
    runs.push({ bytes: size, address: region.backing.hostAddress + at - region.start, owner: region.backing })
    at += size
  }
  return runs
}

const makeContext = (
  options: KvmOptions
): Effect.Effect<Context.Context<Hypervisor | Capabilities>, KvmError, Scope.Scope> =>
  Effect.gen(function*() {
    const bad = findBadOption([
      ["maxVms", options.maxVms, 1, 1024],
      ["configuredVcpus", options.configuredVcpus, 1, MAX_VCPUS]
    ])
    if (bad !== undefined) return yield* fail({ _tag: "BadOption", ...bad })
    const libc = yield* load
    const system = yield* Effect.acquireRelease(
      Effect.mapError(
        Effect.suspend(() => Effect.fromResult(openSystem(libc, options.device ?? DEVICE))),
        (reason) => new KvmError({ reason })
      ),
      ({ fd }) => Effect.sync(() => libc.close(fd))
    )
    yield* Effect.acquireRelease(
      Effect.sync(() => libc.makeInterruptible()),
      (release) => Effect.sync(release)
    )
    const timer = yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const made = libc.threadTimer()
        return typeof made === "number"
          ? fail({ _tag: "Refused", ioctl: "timer_create", errno: -made })
          : Effect.succeed(made)
      }),
      (made) => Effect.sync(() => made.close())
    )
    const launch = Effect.runForkWith(yield* Effect.context())
    const profile = profileOf(system)
    const space = new AddressSpace<KvmBacking>()
    const memory = makeServiceMemory(space, (bytes, purpose) =>
      bytes > profile.maxRamBytes
        ? Result.fail(new ServiceMemoryError({ reason: { _tag: "NoMemory", bytes, available: profile.maxRamBytes } }))
        : Result.succeed(backingFor(libc, bytes, purpose)))
    const upcalls = Upcalls.make()
    const engines = new Map<number, Engine>()
    const hasIrqChip = options.interruptController !== "None"
    const host = {
      raise: upcalls.raise,
      maxSlots: system.maxSlots,
      hasIrqChip,
      hostRuns: hostRunsIn(space),
      makePlacement: (placement: ConstructorParameters<typeof InlinePlacement>[0]) =>
        new InlinePlacement(placement, { timer, launch }),
      forget: (vmId: number) => {
        engines.delete(vmId)
      }
    }
    const model = new HypervisorModel({
      profile,
      memory,
      maxVms: options.maxVms ?? 256,
      configuredVcpus: options.configuredVcpus ?? 1,
      makeEngine: (engineOptions) => {
        const file = VmFile.make(libc, system, { vcpus: engineOptions.vcpus, hasIrqChip })
        if (typeof file === "number") return file
        const engine = new Engine(engineOptions, file, host)
        engines.set(engineOptions.vmId, engine)
        return engine
      }
    })
    yield* Effect.addFinalizer(() => model.shutdown)
    return provide(profile, memory, upcalls.service, model)
  })

/**
 * KVM with options of its own. Fails without koffi, or when the device cannot be opened or lacks something. Each call
 * makes another hypervisor: keep the layer in a constant.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: KvmOptions): Layer.Layer<Hypervisor | Capabilities, KvmError> =>
  Layer.effectContext(makeContext(options))

/**
 * KVM with its defaults.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Hypervisor | Capabilities, KvmError> = layerWith({})
