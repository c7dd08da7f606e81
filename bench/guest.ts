/**
 * A guest that measures: loops of real 32-bit x86, started one at a time and timed by the guest's own accesses to a
 * pair of ports right before and after.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as IoRange from "../src/domain/IoRange.ts"
import type { IoValue } from "../src/domain/IoRequest.ts"
import * as FlatBinary from "../src/layers/images/FlatBinary.ts"
import { seededRandom } from "../src/layers/model/seededRandom.ts"
import { VirtualMachine } from "../src/services/VirtualMachine.ts"
import type { CreatedVm } from "../src/services/Vm.ts"
import { type Sampler, stopwatch } from "./harness.ts"

/** Where things are in guest memory, and the ports of the driver. */
export const CODE = 0x1000
export const TABLE_ADDRESS = 0x1_0000
export const GUEST_MEMORY_BYTES = 1 << 20
export const PASSES_PORT = 0x80
export const LOOP_PORT = 0x84
export const START_PORT = 0x88
export const STOP_PORT = 0x89

/** Entries of the table of addresses. */
export const TABLE_ENTRIES = 4096

const word = (value: number): Array<number> => [value, value >> 8, value >> 16, value >> 24].map((byte) => byte & 0xff)

const movEdx = (value: number) => [0xba, ...word(value)]

/** The bodies of loops; `MOV EDX,[ESI]; ADD ESI,4` comes before each. */
export const body = {
  /** IN AL,DX */
  in: [0xec],
  /** OUT DX,AL; IN AL,DX */
  outIn: [0xee, 0xec],
  /** MOV EAX,[EDX] */
  load: [0x8b, 0x02],
  /** MOV EAX,EDX: what stands for an access in the loop that is subtracted. */
  move: [0x89, 0xd0],
  /** ADD EAX,EDX; XOR EAX,ECX; MOV [EDI],EAX; ADD EAX,[EDI]; SHR EAX,1: five of arithmetic and memory. */
  work: [0x01, 0xd0, 0x31, 0xc8, 0x89, 0x07, 0x03, 0x07, 0xd1, 0xe8]
} as const

/** Instructions of one round of a loop with `work` as its body: the two before it, its five, and LOOP. */
export const WORK_INSTRUCTIONS = 8

const assemble = (...instructions: ReadonlyArray<ReadonlyArray<number>>): Array<number> => instructions.flat()

/** A loop makes passes (EBX of them) of TABLE_ENTRIES rounds each. */
const loopCode = (inner: ReadonlyArray<number>): Array<number> => {
  const round = assemble(
    [0x8b, 0x16], // MOV EDX,[ESI]
    [0x83, 0xc6, 4], // ADD ESI,4
    inner
  )
  const pass = assemble(
    [0xbe, ...word(TABLE_ADDRESS)], // MOV ESI,the table
    [0xbf, ...word(TABLE_ADDRESS + 4 * TABLE_ENTRIES)], // MOV EDI,behind it
    [0xb9, ...word(TABLE_ENTRIES)], // MOV ECX,TABLE_ENTRIES
    round,
    [0xe2, -(round.length + 2) & 0xff], // LOOP round
    [0x4b] // DEC EBX
  )
  return assemble(pass, [0x0f, 0x85, ...word(-(pass.length + 6))]) // JNZ pass
}

/** The driver and its loops. The addresses are where the loops begin. */
export const program = (
  bodies: ReadonlyArray<ReadonlyArray<number>>
): { readonly bytes: Uint8Array; readonly loops: ReadonlyArray<number> } => {
  const bytes = assemble(
    movEdx(PASSES_PORT),
    [0xed, 0x89, 0xc3], // IN EAX,DX; MOV EBX,EAX
    movEdx(LOOP_PORT),
    [0xed, 0x89, 0xc5], // IN EAX,DX; MOV EBP,EAX
    movEdx(START_PORT),
    [0xee], // OUT DX,AL
    [0xff, 0xe5] // JMP EBP
  )
  const loops: Array<number> = []
  for (const each of bodies) {
    loops.push(CODE + bytes.length)
    bytes.push(...loopCode(each), ...movEdx(STOP_PORT), 0xee) // OUT DX,AL
    bytes.push(0xe9, ...word(-(bytes.length + 5))) // JMP driver
  }
  return { bytes: Uint8Array.from(bytes), loops }
}

/** `addresses`, repeated as the table of a guest. */
export const tableBytes = (addresses: ReadonlyArray<number>): Uint8Array =>
  new Uint8Array(Uint32Array.from({ length: TABLE_ENTRIES }, (_, i) => addresses[i % addresses.length]!).buffer)

/** TABLE_ENTRIES addresses, each in one of `starts`, `bytes` long, at random but the same in every run. */
export const randomAddresses = (starts: ReadonlyArray<number>, bytes: number, align = 1): Array<number> => {
  const random = seededRandom(0x5eed)
  const below = (end: number) => (random() >>> 0) % end
  return Array.from({ length: TABLE_ENTRIES }, () => starts[below(starts.length)]! + below(bytes / align) * align)
}

/** A running guest. */
export interface Guest {
  readonly vm: CreatedVm
  /** The time of one round of loop number `loop`, by whole passes. */
  readonly sampler: (loop: number) => Sampler
}

/**
 * Starts a guest with these loops. `addresses` go round and round in EDX. `prepare` puts in what the guest meets.
 */
export const start = <E, R>(options: {
  readonly bodies: ReadonlyArray<ReadonlyArray<number>>
  readonly addresses: ReadonlyArray<number>
  readonly prepare: (vm: CreatedVm) => Effect.Effect<void, E, R>
}): Effect.Effect<Guest, unknown, R | Scope.Scope | VirtualMachine> =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: GUEST_MEMORY_BYTES })
    const { bytes, loops } = program(options.bodies)

    let wanted: { readonly loop: number; readonly passes: number } | undefined
    let wake: (() => void) | undefined
    let elapsed = stopwatch()
    let report: (nanos: number) => void = () => undefined
    const passes = Effect.callback<IoValue>((resume) => {
      const go = () => resume(Effect.succeed(wanted!.passes))
      if (wanted === undefined) wake = go
      else go()
    })
    const register = (name: string, first: number, last: number, value: () => Effect.Effect<IoValue>) =>
      vm.io.register({ name, ranges: [IoRange.ports(first, last)], handle: value })
    yield* register("passes", PASSES_PORT, PASSES_PORT + 3, () => passes)
    yield* register("loop", LOOP_PORT, LOOP_PORT + 3, () => {
      const { loop } = wanted!
      wanted = undefined
      return Effect.succeed(loops[loop]!)
    })
    yield* register("start", START_PORT, START_PORT, () =>
      Effect.sync(() => {
        elapsed = stopwatch()
        return undefined
      }))
    yield* register("stop", STOP_PORT, STOP_PORT, () =>
      Effect.sync(() => {
        report(elapsed())
        return undefined
      }))
    yield* options.prepare(vm)

    yield* vm.load(yield* FlatBinary.plan({ bytes, address: CODE, memoryBytes: GUEST_MEMORY_BYTES }))
    yield* vm.memory.write(TABLE_ADDRESS, tableBytes(options.addresses))
    yield* vm.start
    return {
      vm,
      sampler: (loop) => (iterations) =>
        new Promise((resolve) => {
          const count = Math.max(1, Math.ceil(iterations / TABLE_ENTRIES))
          report = (nanos) => resolve(nanos * iterations / (count * TABLE_ENTRIES))
          wanted = { loop, passes: count }
          wake?.()
          wake = undefined
        })
    }
  })

/** The time of loop `loop` less that of loop `without`. */
export const difference = (guest: Guest, loop: number, without: number): Sampler => async (iterations) => {
  const whole = await guest.sampler(loop)(iterations)
  return whole - await guest.sampler(without)(iterations)
}
