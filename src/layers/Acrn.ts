/**
 * ACRN through the Linux driver of its Service VM, /dev/acrn_hsm: real VMs, on the boards that ACRN runs on.
 *
 * The kernel's module is the HSM here, and this program its default client: it is left the requests of which the kernel
 * takes no care itself. Everything above the layer is as it is on the others, but for what ACRN and its driver lack: a
 * paused VM can be reset, not resumed; START runs vCPU 0 alone; RAM stays mapped until the VM is destroyed; registers
 * cannot be read back; and a guest that stops by itself is not heard of.
 *
 * It needs Linux on x86-64, the right to open the device, and `koffi` installed beside `upcall`; `upcall doctor` tells
 * what is missing. It is not part of the package's entry: import `upcall/layers/Acrn`.
 *
 * **Example** (One VM on a board)
 *
 * ```ts
 * import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
 * import * as Effect from "effect/Effect"
 * import { FlatBinary, VirtualMachine } from "upcall"
 * import * as Acrn from "upcall/layers/Acrn"
 *
 * const program = Effect.gen(function*() {
 *   const machines = yield* VirtualMachine.VirtualMachine
 *   const vm = yield* machines.create({ memoryBytes: 1 << 20 })
 *   yield* vm.load(yield* FlatBinary.plan({ bytes, address: 0x1000, memoryBytes: vm.memoryBytes }))
 *   const running = yield* vm.start
 *   return yield* running.pause
 * })
 * // `bytes` is the guest's code, a Uint8Array; processor 3 and the name are from ACRN's scenario file.
 * const acrn = Acrn.layerWith({ processors: [3], names: ["POST_STD_VM1"] })
 * const main = program.pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(acrn))
 * // It ends the scope at Ctrl-C, too: the driver does not survive a process that dies while its VM runs.
 * NodeRuntime.runMain(main)
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import process from "node:process"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../domain/Limits.ts"
import { makeServiceMemory } from "../services/AddressSpace.ts"
import { makeGate } from "../services/HypercallBackend.ts"
import { HypercallGate } from "../services/HypercallGate.ts"
import { Doorbells, type Hypervisor, IrqFds, IrqLines, IrqMonitor, Msi } from "../services/Hypervisor.ts"
import { ServiceMemory } from "../services/ServiceMemory.ts"
import * as Upcalls from "../services/Upcalls.ts"
import { AcrnError, AcrnErrorReason } from "./acrn/AcrnError.ts"
import * as capabilities from "./acrn/capabilities.ts"
import { HsmBackend, type HsmOptions, MAX_RAM_BYTES, type MmioWindow, NAME_BYTES } from "./acrn/HsmBackend.ts"
import { openHsm } from "./acrn/HsmFile.ts"
import { meaningOfOpen } from "./acrn/meanings.ts"
import { backingFor, UserSpace } from "./acrn/UserMemory.ts"
import { makeWaiters } from "./acrn/Waiters.ts"
import { backUpTo } from "./model/backUpTo.ts"
import type { Libc } from "./native/Libc.ts"
import { load } from "./native/load.ts"

export {
  /**
   * The layer could not be built, or the driver refused a request. A refusal names the request, the error, and what
   * the driver means by it.
   *
   * @category errors
   * @since 0.1.0
   */
  AcrnError,
  /**
   * - `BadOption`: an option is not what it must be; nothing was built.
   * - `NoFfi`: `koffi` is not installed, or does not run here.
   * - `WrongPlatform`: not Linux on x86-64.
   * - `NoDevice`: the device could not be opened.
   * - `Refused`: the driver, or the hypervisor through it, refused a request.
   * - `NotAsked`: the layer refused, because the driver could not be trusted to.
   * - `WaiterEnded`: a VM's thread ended before the VM did.
   *
   * @category errors
   * @since 0.1.0
   */
  AcrnErrorReason,
  /**
   * Whole pages of the board's physical memory, below 2^52.
   *
   * @category models
   * @since 0.1.0
   */
  type MmioWindow
}

/**
 * - `device`: the driver's device, default `/dev/acrn_hsm`.
 * - `processors`: the board's processor for each vCPU, by its number, 0 to 63; default processor n for vCPU n. ACRN
 *   refuses those that its scenario does not give to the VM.
 * - `names`: names that ACRN's scenario has for VMs to be launched, 1 to 15 bytes each. A VM that is created takes the
 *   first that none has. Default none, which is right for ACRN releases before 3.0 and for those that need no name.
 * - `vmFlags`: bits of `vm_flag` for each VM (ACRN's `GUEST_FLAG_*`), default 0.
 * - `maxRamBytes`: the most RAM of one VM, 4096 to 16 GiB, default 4 GiB. The driver pins all of it.
 * - `mmio`: physical memory of the board that VMs may be given by VM_SET_MEMORY_REGIONS as uncached; default none.
 *
 * @category models
 * @since 0.1.0
 */
export interface AcrnOptions {
  readonly device?: string
  readonly processors?: ReadonlyArray<number>
  readonly names?: ReadonlyArray<string>
  readonly vmFlags?: bigint
  readonly maxRamBytes?: number
  readonly mmio?: ReadonlyArray<MmioWindow>
}

/**
 * What the driver said, for programs and people who want to know more than a hypercall's result.
 *
 * @category services
 * @since 0.1.0
 */
export class Driver extends Context.Service<Driver, {
  /** The last 64 requests that were refused, oldest first. */
  readonly refusals: Effect.Effect<ReadonlyArray<AcrnError>>
}>()("upcall/layers/Acrn/Driver") {}

/**
 * The capabilities that Acrn has beside the seam.
 *
 * @category models
 * @since 0.1.0
 */
export type Capabilities = Doorbells | Driver | IrqFds | IrqLines | IrqMonitor | Msi

const DEVICE = "/dev/acrn_hsm"
const DEFAULT_RAM_BYTES = 2 ** 32
const PROCESSORS = 64

const profileOf = (options: AcrnOptions): HypervisorProfile => ({
  name: "acrn",
  maxVcpus: Math.min(MAX_VCPUS, options.processors?.length ?? MAX_VCPUS),
  maxRamBytes: options.maxRamBytes ?? DEFAULT_RAM_BYTES,
  // Guest addresses are translated by four levels of page tables.
  addressBits: 48,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4, 8],
  mapping: "Pages",
  modes: ["Real", "Protected32", "Long64"],
  startsAllVcpus: false,
  keepsRamMapped: true,
  dispatchRole: "DefaultClient"
})

const nameLength = (name: string): number => new TextEncoder().encode(name).length

const isIn = (value: number, least: number, most: number): boolean =>
  Number.isSafeInteger(value) && value >= least && value <= most

const badOption = (options: AcrnOptions): AcrnErrorReason | undefined => {
  const { maxRamBytes, mmio = [], names = [], processors = [0], vmFlags = 0n } = options
  const bad = (option: string, value: unknown, expected: string) =>
    ({ _tag: "BadOption", option, value, expected }) as const
  const name = names.find((each) => nameLength(each) < 1 || nameLength(each) >= NAME_BYTES)
  if (name !== undefined) return bad("names", name, `1 to ${NAME_BYTES - 1} bytes long`)
  if (new Set(names).size < names.length) return bad("names", names.join(", "), "different names")
  const processor = processors.find((each) => !isIn(each, 0, PROCESSORS - 1))
  if (processor !== undefined) return bad("processors", processor, `an integer from 0 to ${PROCESSORS - 1}`)
  if (!isIn(processors.length, 1, MAX_VCPUS) || new Set(processors).size < processors.length) {
    return bad("processors", processors.join(", "), `1 to ${MAX_VCPUS} different processors`)
  }
  if (vmFlags < 0n || vmFlags >> 64n !== 0n) return bad("vmFlags", vmFlags, "a word of 64 bits")
  if (maxRamBytes !== undefined && !isIn(maxRamBytes, PAGE_BYTES, MAX_RAM_BYTES)) {
    return bad("maxRamBytes", maxRamBytes, `an integer from ${PAGE_BYTES} to ${MAX_RAM_BYTES}`)
  }
  const window = mmio.find(({ address, bytes }) =>
    !isIn(address, 0, 2 ** 52 - 1) || !isIn(bytes, 1, 2 ** 52 - address) || (address % PAGE_BYTES) + bytes % PAGE_BYTES
  )
  return window === undefined ? undefined : bad("mmio", window.address, "whole pages of physical memory, below 2^52")
}

const fail = (reason: AcrnErrorReason) => Effect.fail(new AcrnError({ reason }))

/** A file of the driver that is opened and closed tells at once what a VM would find out later. */
const checkDevice = (libc: Libc, path: string): Effect.Effect<void, AcrnError> =>
  Effect.suspend(() => {
    const file = openHsm(libc, path)
    if (typeof file === "number") {
      return fail({ _tag: "NoDevice", path, errno: -file, meaning: meaningOfOpen(-file) })
    }
    file.close()
    return Effect.void
  })

const makeContext = (
  options: AcrnOptions
): Effect.Effect<Context.Context<Hypervisor | Capabilities>, AcrnError, Scope.Scope> =>
  Effect.gen(function*() {
    const bad = badOption(options)
    if (bad !== undefined) return yield* fail(bad)
    const libc = yield* Effect.mapError(load, (reason) => new AcrnError({ reason }))
    const hsm: HsmOptions = {
      device: options.device ?? DEVICE,
      processors: options.processors,
      names: options.names ?? [],
      vmFlags: options.vmFlags ?? 0n,
      mmio: options.mmio ?? []
    }
    yield* checkDevice(libc, hsm.device)
    const profile = profileOf(options)
    const space = new UserSpace()
    const back = backUpTo(profile.maxRamBytes, (bytes, purpose) => backingFor(libc, bytes, purpose))
    const memory = makeServiceMemory(space, back)
    const upcalls = Upcalls.make()
    const waiters = yield* Effect.acquireRelease(
      Effect.sync(() => makeWaiters(libc)),
      (made) => Effect.promise(() => made.close())
    )
    const backend = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const made = new HsmBackend({
          ...hsm,
          libc,
          openHsm: (path) => openHsm(libc, path),
          space,
          raise: upcalls.raise,
          waiters
        })
        process.on("exit", made.endAll)
        return made
      }),
      (made) =>
        Effect.promise(async () => {
          process.off("exit", made.endAll)
          await Promise.all(made.endAll().map((waiter) => waiter.gone))
        })
    )
    return Context.empty().pipe(
      Context.add(HypercallGate, makeGate(profile, memory, backend)),
      Context.add(ServiceMemory, memory),
      Context.add(Upcalls.Upcalls, upcalls.service),
      Context.add(IrqLines, capabilities.irqLines(backend)),
      Context.add(Msi, capabilities.msi(backend)),
      Context.add(IrqMonitor, capabilities.irqMonitor(backend, libc)),
      Context.add(Doorbells, capabilities.doorbells(backend, libc)),
      Context.add(IrqFds, capabilities.irqFds(backend, libc)),
      Context.add(Driver, Driver.of({ refusals: Effect.sync(() => [...backend.refusals]) }))
    )
  })

/**
 * ACRN with options of its own. Fails when an option cannot be, without koffi, or when the device cannot be opened.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: AcrnOptions): Layer.Layer<Hypervisor | Capabilities, AcrnError> =>
  Layer.effectContext(makeContext(options))

/**
 * ACRN at /dev/acrn_hsm.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Hypervisor | Capabilities, AcrnError> = layerWith({})
