/**
 * Virtual machines with a typed life: created, running, paused. Written once, it runs on every hypervisor layer.
 *
 * A VM lives in a scope. Closing it, at any point, pauses the VM, answers what its vCPUs wait for with all-ones,
 * destroys it in the hypervisor, and only then releases its devices and memory.
 *
 * **Example** (Running a guest to its end)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { DebugExit, FlatBinary, Simulated, VirtualMachine } from "upcall"
 *
 * const program = Effect.gen(function*() {
 *   const machines = yield* VirtualMachine.VirtualMachine
 *   const vm = yield* machines.create({ memoryBytes: 1 << 20 })
 *   yield* vm.attach(DebugExit.make())
 *   yield* vm.load(yield* FlatBinary.plan({ bytes, address: 0x1000, memoryBytes: vm.memoryBytes }))
 *   const running = yield* vm.start
 *   return yield* running.ended
 * })
 * // `bytes` is the guest's code, a Uint8Array.
 * program.pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(Simulated.layer))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { INTERVAL, isInterval, millisOf } from "./dispatch/interval.ts"
import type { Hypervisor } from "./Hypervisor.ts"
import { VirtualMachineError } from "./VirtualMachineError.ts"
import type { CreatedVm, VmOptions } from "./Vm.ts"
import { makeCreate, makeCreateWith } from "./vm/create.ts"

/**
 * Makes virtual machines on the hypervisor layer below.
 *
 * @category services
 * @since 0.1.0
 */
export class VirtualMachine extends Context.Service<VirtualMachine, {
  /** Creates a VM that lives until the scope closes. What the layer cannot do is refused before anything is made. */
  readonly create: (options: VmOptions) => Effect.Effect<CreatedVm, VirtualMachineError, Scope.Scope>
}>()("upcall/services/VirtualMachine") {}

/**
 * Virtual machines over any hypervisor layer. It arms the one upcall handler of the hypervisor and routes upcalls to
 * the VMs.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<VirtualMachine, never, Hypervisor> = Layer.effect(
  VirtualMachine,
  Effect.map(makeCreate, (create) => VirtualMachine.of({ create }))
)

/**
 * `rescan`: how often every VM's page is looked at without an upcall, for hypervisors that may lose one. A request whose
 * upcall never came is served within one interval of the Clock that the layer is built with; default never, because the
 * layers of Upcall lose none.
 *
 * @category models
 * @since 0.1.0
 */
export interface VirtualMachineOptions {
  readonly rescan?: Duration.Input
}

/**
 * Virtual machines over a hypervisor whose upcalls may get lost. Fails with `BadOption` when the interval is not
 * positive or not finite. Each call makes another service, with an upcall handler of its own: keep the layer in a
 * constant.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (
  options: VirtualMachineOptions
): Layer.Layer<VirtualMachine, VirtualMachineError, Hypervisor> =>
  Layer.effect(
    VirtualMachine,
    Effect.suspend(() => {
      const rescan = options.rescan === undefined ? undefined : millisOf(options.rescan)
      if (rescan !== undefined && !isInterval(rescan)) {
        return Effect.fail(
          new VirtualMachineError({
            reason: { _tag: "BadOption", option: "rescan", value: rescan, expected: `${INTERVAL}, in milliseconds` }
          })
        )
      }
      return Effect.map(makeCreateWith(rescan), (create) => VirtualMachine.of({ create }))
    })
  )
