/**
 * Linux KVM: guests on the processor's own virtualization.
 *
 * It needs Linux on x86-64, the right to open /dev/kvm, and `koffi` installed beside `upcall`; `upcall doctor` tells
 * what is missing. A program that ran on `Simulated` or `Emulated` runs here by changing the layer.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { totalmem } from "node:os"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../domain/Limits.ts"
import { readExecute, readWriteExecute } from "../domain/MemoryRegion.ts"
import { AddressSpace, localBacking, makeServiceMemory, type RawBacking, rawBacking } from "../services/AddressSpace.ts"
import { DirtyLog, Doorbells, type Hypervisor, IrqFds, Msi, VcpuSnapshots } from "../services/Hypervisor.ts"
import type { MemoryPurpose } from "../services/ServiceMemory.ts"
import * as Upcalls from "../services/Upcalls.ts"
import { capabilityCName } from "./kvm/abi/Capability.ts"
import { ioctlCName } from "./kvm/abi/KvmIoctl.ts"
import { dirtyLog, type HostWrites } from "./kvm/capabilities/dirtyLog.ts"
import { doorbells } from "./kvm/capabilities/doorbells.ts"
import { irqFds, msi } from "./kvm/capabilities/messages.ts"
import { Engine } from "./kvm/Engine.ts"
import type { HostRun } from "./kvm/GuestSlots.ts"
import { InlinePlacement } from "./kvm/InlinePlacement.ts"
import { KvmError, type KvmErrorReason } from "./kvm/KvmError.ts"
import { type KvmSystem, openSystem } from "./kvm/KvmSystem.ts"
import type { Placement, PlacementOptions } from "./kvm/Placement.ts"
import { InitialStates } from "./kvm/snapshot/InitialStates.ts"
import { makeVcpuSnapshots } from "./kvm/snapshot/vcpuSnapshots.ts"
import { VcpuSetup } from "./kvm/VcpuSetup.ts"
import { VmFile } from "./kvm/VmFile.ts"
import { makeThreads } from "./kvm/worker/Threads.ts"
import { WorkerPlacement } from "./kvm/worker/WorkerPlacement.ts"
import { backUpTo } from "./model/backUpTo.ts"
import { HypervisorModel } from "./model/HypervisorModel.ts"
import { findBadOption } from "./model/options.ts"
import { type ModelCapabilities, provide } from "./model/provide.ts"
import type { Libc } from "./native/Libc.ts"
import { load } from "./native/load.ts"
import { sharedPages } from "./native/sharedPages.ts"

export { KvmError, KvmErrorReason } from "./kvm/KvmError.ts"

/**
 * - `device`: the device file, default /dev/kvm.
 * - `maxVms`: VMs at once, 1 to 1024, default 256.
 * - `configuredVcpus`: vCPUs of a VM that is created with an empty CPU affinity, 1 to 16, default 1.
 * - `interruptController`: `Kernel` (default) has the kernel's pair of 8259s, I/O APIC and local APICs; with `None`
 *   there are no interrupts, and HLT ends the guest at once.
 * - `placement`: where vCPUs run. `Inline` (default) runs them in turns on the thread that serves their requests, which
 *   is the fastest for I/O; a timer takes the thread back each millisecond, so that the event loop lives. `Worker` runs
 *   each on a thread of its own: the event loop stays free, and vCPUs run at the same time.
 * - `cpu`: `Host` (default) has all features of the processor that KVM supports; `Plain` those that every x86-64
 *   processor of the last fifteen years has, for a KVM that refuses its own, and for guests that shall find the same
 *   processor elsewhere.
 * - `tscKhz`: the rate of the guests' time stamp counters in kHz, 1 to 2^32 - 1, where KVM can change it; default the
 *   host's.
 * - `timer`: `Kernel` has the kernel's 8254 at ports 0x40 to 0x43 and 0x61, on line 0 of the interrupt controllers,
 *   which it therefore needs. Its ticks need no turn of this process, and come in time when that is busy. Default
 *   `None`, because the device model `Pit8254` does the same in the VM's own time and can be looked at; it is not asked
 *   where the kernel has a timer. A vCPU that halts on the thread of its dispatcher sees a tick within 1 ms.
 *
 * @category models
 * @since 0.1.0
 */
export interface KvmOptions {
  readonly device?: string
  readonly maxVms?: number
  readonly configuredVcpus?: number
  readonly interruptController?: "Kernel" | "None"
  readonly placement?: "Inline" | "Worker"
  readonly cpu?: "Host" | "Plain"
  readonly tscKhz?: number
  readonly timer?: "Kernel" | "None"
}

/**
 * The capabilities that KVM has beside the seam.
 *
 * @category models
 * @since 0.1.0
 */
export type Capabilities = DirtyLog | Doorbells | IrqFds | ModelCapabilities | Msi | VcpuSnapshots

const DEVICE = "/dev/kvm"

/** The most looks for the other side before sleeping. They adapt: who looks for one that sleeps only keeps it awake longer. */
const SPINS = { vcpu: 400, dispatcher: 1000 }

const fail = (reason: KvmErrorReason) => Effect.fail(new KvmError({ reason }))

const profileOf = ({ addressBits, maxVcpus }: KvmSystem): HypervisorProfile => ({
  name: "kvm",
  maxVcpus: Math.min(MAX_VCPUS, maxVcpus),
  maxRamBytes: Math.floor(totalmem() / PAGE_BYTES) * PAGE_BYTES,
  addressBits,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4, 8],
  mapping: "Pages",
  // A memory slot can be read and executed, or written too; a page that cannot be read is no slot.
  accessRights: [readWriteExecute, readExecute, { read: false, write: false, execute: true }],
  modes: ["Real", "Protected32", "Long64"],
  startsAllVcpus: true
})

interface KvmBacking extends RawBacking {
  /** Where it is in this process, of memory that a guest can be given. */
  readonly hostAddress: number | undefined
}

const backingFor = (libc: Libc, bytes: number, purpose: MemoryPurpose, hostWrites: HostWrites): KvmBacking => {
  if (purpose._tag !== "GuestRam") return { ...localBacking(bytes), hostAddress: undefined }
  const raw = sharedPages(libc, bytes)
  const backing = rawBacking(raw)
  const hostAddress = libc.addressOf(raw)
  return {
    ...backing,
    hostAddress,
    write: (offset, from) => {
      backing.write(offset, from)
      for (const note of hostWrites) note(hostAddress + offset, from.length)
    }
  }
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
      ["configuredVcpus", options.configuredVcpus, 1, MAX_VCPUS],
      ["tscKhz", options.tscKhz, 1, 0xffff_ffff]
    ])
    if (bad !== undefined) return yield* fail({ _tag: "BadOption", ...bad })
    const libc = yield* Effect.mapError(load, (reason) => new KvmError({ reason }))
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
    const threads = options.placement === "Worker"
      ? yield* Effect.acquireRelease(
        Effect.sync(makeThreads),
        (made) => Effect.promise(() => made.close())
      )
      : undefined
    const launch = Effect.runForkWith(yield* Effect.context())
    const profile = profileOf(system)
    const space = new AddressSpace<KvmBacking>()
    const hostWrites: HostWrites = new Set()
    const back = backUpTo(profile.maxRamBytes, (bytes, purpose) => backingFor(libc, bytes, purpose, hostWrites))
    const memory = makeServiceMemory(space, back)
    const upcalls = Upcalls.make()
    const engines = new Map<number, Engine>()
    const hasIrqChip = options.interruptController !== "None"
    const hasTimer = options.timer === "Kernel"
    if (hasTimer && !hasIrqChip) {
      const expected = "\"None\" without the kernel's interrupt controllers"
      return yield* fail({ _tag: "BadOption", option: "timer", value: "Kernel", expected })
    }
    if (hasTimer && system.extension("PIT2") === 0) {
      return yield* fail({ _tag: "NoCapability", capability: capabilityCName("PIT2") })
    }
    const { tscKhz } = options
    if (tscKhz !== undefined && system.extension("TSC_CONTROL") === 0) {
      const expected = `left out, since this KVM lacks ${capabilityCName("TSC_CONTROL")}`
      return yield* fail({ _tag: "BadOption", option: "tscKhz", value: tscKhz, expected })
    }
    const setup = new VcpuSetup(libc, system, { hasLocalApic: hasIrqChip, cpu: options.cpu ?? "Host", tscKhz })
    const initialStates = InitialStates.make(libc, system, hasIrqChip)
    if (typeof initialStates === "number") {
      return yield* fail({ _tag: "Refused", ioctl: ioctlCName("GET_MSR_INDEX_LIST"), errno: -initialStates })
    }
    const host = {
      raise: upcalls.raise,
      maxSlots: system.maxSlots,
      hasIrqChip,
      hostRuns: hostRunsIn(space),
      initialStates,
      makePlacement: (placement: PlacementOptions): Placement =>
        threads === undefined
          ? new InlinePlacement(placement, { timer, launch })
          : new WorkerPlacement(placement, { libc, threads, spins: SPINS }),
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
        const file = VmFile.make(libc, system, { vcpus: engineOptions.vcpus, hasIrqChip, hasTimer, setup })
        if (typeof file === "number") return file
        const unread = initialStates.learn(file)
        if (unread !== undefined) {
          file.close()
          return unread.result
        }
        const engine = new Engine(engineOptions, file, host)
        engines.set(engineOptions.vmId, engine)
        return engine
      }
    })
    yield* Effect.addFinalizer(() => model.shutdown)
    return provide(profile, memory, upcalls.service, model).pipe(
      Context.add(VcpuSnapshots, makeVcpuSnapshots(engines, initialStates.access)),
      Context.add(Msi, msi(engines)),
      Context.add(IrqFds, irqFds(engines, libc, system.extension("IRQ_ROUTING"))),
      Context.add(Doorbells, doorbells(engines, libc)),
      Context.add(DirtyLog, dirtyLog(engines, libc, hostWrites))
    )
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
