/**
 * Runs guest programs to their end and tells all that can be seen of them: why they ended, what they read, their memory,
 * their registers, and the trace of their accesses. Two hypervisors, or two seeds, are compared by running the same program on
 * each.
 *
 * **Example** (The same program, the same trace)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Result from "effect/Result"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as MmioScratch from "upcall/layers/devices/MmioScratch"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 * import * as GuestRun from "upcall/testing/GuestRun"
 *
 * const guest = Result.getOrThrow(GuestProgram.assemble([
 *   { _tag: "Store", address: 0xe0000010, size: 4, value: 0x11223344 },
 *   { _tag: "Load", address: 0xe0000012, size: 2 },
 *   { _tag: "Keep" }
 * ]))
 * const run = GuestRun.run(guest, MmioScratch.make()).pipe(
 *   Effect.provide(VirtualMachine.layer),
 *   Effect.provide(Simulated.layer)
 * )
 * const [first, second] = await Effect.runPromise(Effect.all([run, run]))
 * console.log(first.end._tag, first.results.toString(), first.trace.hash === second.trace.hash)
 * // => Halted 34,17,34,17 true
 * ```
 *
 * **Example** (Two vCPUs, each with a program of its own)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Result from "effect/Result"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 * import * as GuestRun from "upcall/testing/GuestRun"
 *
 * const guests = Result.getOrThrow(GuestProgram.assembleAll([
 *   [{ _tag: "PortOut", port: 0x80, size: 1, value: 1 }, { _tag: "Keep" }],
 *   [{ _tag: "PortOut", port: 0x80, size: 1, value: 2 }, { _tag: "Keep" }]
 * ]))
 * const run = await Effect.runPromise(GuestRun.runAll(guests, Effect.void).pipe(
 *   Effect.provide(VirtualMachine.layer),
 *   Effect.provide(Simulated.layer)
 * ))
 * console.log(run.end._tag, run.vcpus.map(({ results }) => results[0]))
 * // => Halted [ 1, 2 ]
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { EndReason } from "../domain/EndReason.ts"
import type { VcpuRegisters } from "../domain/VcpuRegisters.ts"
import type { GuestMemoryError } from "../services/GuestMemory.ts"
import type { VcpuState } from "../services/Hypervisor.ts"
import type { Machine } from "../services/Machine.ts"
import { VirtualMachine } from "../services/VirtualMachine.ts"
import type { VirtualMachineError } from "../services/VirtualMachineError.ts"
import type { StoppedVm } from "../services/Vm.ts"
import * as GuestProgram from "./GuestProgram.ts"
import * as Trace from "./Trace.ts"

/**
 * What came of a run on one vCPU. `memory` is all of the VM's RAM.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestRun extends VcpuRun {
  readonly end: EndReason
  readonly memory: Uint8Array
  readonly trace: Trace.Trace
}

/**
 * What is seen of one vCPU afterwards.
 *
 * @category models
 * @since 0.1.0
 */
export interface VcpuRun {
  readonly results: Uint8Array
  readonly registers: VcpuRegisters
}

/**
 * What came of a run on several vCPUs, vCPU 0 first. The order of their requests in the trace depends on how the
 * hypervisor lets them take turns; each one's own are in order.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestRuns {
  readonly end: EndReason
  readonly vcpus: ReadonlyArray<VcpuRun>
  readonly memory: Uint8Array
  readonly trace: Trace.Trace
}

/**
 * Creates a VM with a vCPU for each program and RAM for all, attaches `devices`, runs it until its guest stops by itself
 * (all vCPUs halted, or a device or a fault ended it), and destroys it. A program whose device never answers never ends.
 *
 * @category constructors
 * @since 0.1.0
 */
export const runAll = <E, R>(
  programs: GuestProgram.GuestPrograms,
  devices: Effect.Effect<unknown, E, R>
): Effect.Effect<
  GuestRuns,
  E | GuestMemoryError | VirtualMachineError,
  VirtualMachine | VcpuState | Exclude<R, Machine | Scope.Scope>
> =>
  Effect.scoped(Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: programs.plan.memoryBytes, vcpus: programs.vcpus.length })
    yield* vm.attach(devices)
    const recording = yield* Trace.record(vm)
    yield* load(vm, programs)
    const running = yield* vm.start
    const end = yield* running.ended
    yield* running.pause
    return {
      end,
      vcpus: yield* Effect.forEach(programs.vcpus, (program, vcpu) =>
        Effect.all({ results: GuestProgram.results(program, vm.memory), registers: vm.registers(vcpu) })),
      memory: yield* vm.memory.read(0, vm.memoryBytes),
      trace: yield* recording.trace
    }
  }))

/**
 * Writes programs to a VM that has not started, and sets every vCPU's registers, for a test that runs it by itself.
 * Fails, with nothing of it done but perhaps registers, when the VM has too little RAM or too few vCPUs.
 *
 * @category constructors
 * @since 0.1.0
 */
export const load = (vm: StoppedVm, programs: GuestProgram.GuestPrograms): Effect.Effect<void, VirtualMachineError> => {
  // vCPU 0's registers come with the plan; they are set last, for they are checked together with the memory.
  const others = programs.vcpus.slice(1)
  return Effect.andThen(
    Effect.forEach(others, ({ registers }, index) => vm.setRegisters(index + 1, registers), { discard: true }),
    vm.load(programs.plan)
  )
}

/**
 * {@link runAll} for a program on the one vCPU of its VM.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <E, R>(
  program: GuestProgram.GuestProgram,
  devices: Effect.Effect<unknown, E, R>
): Effect.Effect<
  GuestRun,
  E | GuestMemoryError | VirtualMachineError,
  VirtualMachine | VcpuState | Exclude<R, Machine | Scope.Scope>
> =>
  Effect.map(
    runAll({ vcpus: [program], plan: program.plan }, devices),
    ({ end, memory, trace, vcpus: [vcpu] }) => ({ end, memory, trace, ...vcpu! })
  )
