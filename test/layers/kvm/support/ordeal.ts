/**
 * Runs a guest that may do anything, and looks whether anything but itself suffers: the host's timers, the pause of its
 * VM, memory that is not its own.
 */
import { Effect, Exit } from "effect"
import { readExecute } from "../../../../src/domain/MemoryRegion.ts"
import type { VcpuRegisters } from "../../../../src/domain/VcpuRegisters.ts"
import { VirtualMachine } from "../../../../src/services/VirtualMachine.ts"
import { type Adversary, type Fate, memoryOf, RAM_BYTES, registersOf } from "./adversaries.ts"

const ROM = 0x10_0000
const PATTERN = 0xa5
const BESIDES_BYTES = 0x2_0000

const pattern = (bytes: number) => new Uint8Array(bytes).fill(PATTERN)

/** A VM that does not run, before and behind which the host's memory has those of others. */
const bystander = Effect.gen(function*() {
  const machines = yield* VirtualMachine
  const vm = yield* machines.create({ name: "bystander", memoryBytes: BESIDES_BYTES })
  yield* vm.memory.write(0, pattern(BESIDES_BYTES))
  return Effect.map(vm.memory.read(0, BESIDES_BYTES), isUntouched)
})

const isUntouched = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === PATTERN)

export interface Ordeal {
  readonly fate: Fate
  readonly requests: number
  readonly problems: ReadonlyArray<string>
}

/** Gives the guest `turns` turns of the host's timers, pauses it, lets it go on, and pauses it again. */
export const ordeal = (
  adversary: Adversary,
  { gprs, turns }: { readonly turns: number; readonly gprs?: Partial<VcpuRegisters["gprs"]> }
) =>
  Effect.scoped(Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const { mode, vcpus = 1 } = adversary
    const before = yield* bystander
    const vm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus })
    const behind = yield* bystander
    yield* vm.mapMemory({ guestAddress: ROM, bytes: 0x1000, rights: readExecute })
    yield* vm.memory.write(ROM, pattern(0x1000))
    for (const [address, bytes] of memoryOf(adversary)) yield* vm.memory.write(address, bytes)
    for (let vcpu = 0; vcpu < vcpus; vcpu++) yield* vm.setRegisters(vcpu, registersOf(mode, gprs))
    let requests = 0
    yield* vm.io.observe({
      onComplete: () => {
        requests++
      }
    })

    const started = yield* vm.start
    const ending = yield* Effect.forkScoped(started.ended)
    const fateSoFar = (): Fate => {
      const exit = ending.pollUnsafe()
      return exit !== undefined && Exit.isSuccess(exit) ? exit.value._tag : "Runs"
    }
    const live = Effect.gen(function*() {
      for (let turn = 0; turn < turns && fateSoFar() === "Runs"; turn++) yield* Effect.sleep(1)
    })
    yield* live
    const paused = yield* started.pauseWithin("1 minute")
    const requestsThen = requests
    const registers = yield* Effect.result(vm.registers(0))
    yield* Effect.yieldNow
    const problems: Array<string> = []
    if (requests !== requestsThen) problems.push("it asked while it was paused")
    if (registers._tag === "Failure" && fateSoFar() !== "Runs") problems.push("the registers of its end are unknown")
    const resumed = yield* paused.resume
    yield* live
    yield* resumed.pauseWithin("1 minute")

    if (!(yield* before) || !(yield* behind)) problems.push("another VM's memory was changed")
    if (!isUntouched(yield* vm.memory.read(ROM, 0x1000))) problems.push("read-only memory was changed")
    return { fate: fateSoFar(), requests, problems } satisfies Ordeal
  }))
