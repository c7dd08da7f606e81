/** Virtual machines on the simulated hypervisor, for tests of what stands above it. */
import { Effect, Layer, type Scope } from "effect"
import type { EndReason } from "../../src/domain/EndReason.ts"
import { type IoRange, ports } from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { VirtualMachineError } from "../../src/services/VirtualMachineError.ts"
import type { CreatedVm, Vm } from "../../src/services/Vm.ts"

/** Where the program of vCPU 0 begins; that of vCPU n begins n pages later. */
export const ENTRY = 0x1000
export const STACK = 0x1_8000
export const RAM_BYTES = 0x2_0000

/** Ports of the devices below. */
export const TEST_PORTS = ports(0x100, 0x1ff)

type Provided = VirtualMachine.VirtualMachine | Hypervisor | Simulated.Capabilities | Scope.Scope

/** Runs a program on a simulated hypervisor of its own. */
export const onSimulated =
  (options: Simulated.SimulatedOptions = {}) =>
  <A, E, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Provided>> =>
    program.pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layerWith(options))), { local: true })
    ) as Effect.Effect<A, E, Exclude<R, Provided>>

/** A VM whose vCPUs are ready to run these programs, one each. */
export const boot = (
  ...programs: ReadonlyArray<Uint8Array>
): Effect.Effect<CreatedVm, VirtualMachineError, VirtualMachine.VirtualMachine | Scope.Scope> =>
  bootWith({}, ...programs)

export const bootWith = (
  options: { readonly name?: string; readonly memoryBytes?: number },
  ...programs: ReadonlyArray<Uint8Array>
): Effect.Effect<CreatedVm, VirtualMachineError, VirtualMachine.VirtualMachine | Scope.Scope> =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus: Math.max(1, programs.length), ...options })
    for (const [vcpu, bytes] of programs.entries()) {
      const entry = ENTRY + vcpu * 0x1000
      yield* Effect.orDie(vm.memory.write(entry, bytes))
      yield* vm.setRegisters(vcpu, VcpuRegisters.flat32({ entry, stack: STACK - vcpu * 0x100 }))
    }
    return vm
  })

/** Starts a VM and waits until its guest stops by itself. */
export const runToEnd = (vm: CreatedVm): Effect.Effect<EndReason, VirtualMachineError> =>
  Effect.flatMap(vm.start, (running) => running.ended)

/** A client that answers at once with what `answer` says, and the list of what it was asked. */
export const recorder = (
  vm: Vm,
  options: {
    readonly name?: string
    readonly ranges?: ReadonlyArray<IoRange>
    readonly answer?: (request: IoRequest) => IoValue
  } = {}
) =>
  Effect.gen(function*() {
    const seen: Array<IoRequest> = []
    yield* vm.io.register({
      name: options.name ?? "recorder",
      ranges: options.ranges ?? [TEST_PORTS],
      handle: (request) =>
        Effect.sync((): IoValue => {
          seen.push(request)
          return options.answer?.(request)
        })
    })
    return seen
  })

/** A short form of a request, for comparing traces. */
export const brief = (request: IoRequest): string => {
  const place = "port" in request
    ? `port ${request.port.toString(16)}`
    : "address" in request
    ? `mmio ${request.address.toString(16)}`
    : `pci ${request.bus}:${request.device}.${request.function} ${request.register.toString(16)}`
  return "value" in request
    ? `w${request.size} ${place} ${request.value.toString(16)}`
    : `r${request.size} ${place}`
}

/** Lets the host's event loop turn, so that fibers and vCPUs which can go on do. */
export const turns = (count = 20): Effect.Effect<void> =>
  Effect.forEach(Array.from({ length: count }), () => Effect.yieldNow, { discard: true })

/** Lets the host's event loop turn until something happened. */
export const until = (happened: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => happened() ? Effect.void : Effect.andThen(Effect.yieldNow, until(happened)))
