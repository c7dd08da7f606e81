/**
 * Runs a guest program to its end and tells all that can be seen of it: why it ended, what it read, its memory, its
 * registers, and the trace of its accesses. Two hypervisors, or two seeds, are compared by running the same program on
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
import * as GuestProgram from "./GuestProgram.ts"
import * as Trace from "./Trace.ts"

/**
 * What came of a run. `memory` is all of the VM's RAM.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestRun {
  readonly end: EndReason
  readonly results: Uint8Array
  readonly memory: Uint8Array
  readonly registers: VcpuRegisters
  readonly trace: Trace.Trace
}

/**
 * Creates a VM with the program's RAM, attaches `devices`, runs the program until its guest stops by itself, and
 * destroys the VM. A program whose device never answers never ends.
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
  Effect.scoped(Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: program.plan.memoryBytes })
    yield* vm.attach(devices)
    const recording = yield* Trace.record(vm)
    yield* vm.load(program.plan)
    const running = yield* vm.start
    const end = yield* running.ended
    yield* running.pause
    return {
      end,
      results: yield* GuestProgram.results(program, vm.memory),
      memory: yield* vm.memory.read(0, vm.memoryBytes),
      registers: yield* vm.registers(0),
      trace: yield* recording.trace
    }
  }))
