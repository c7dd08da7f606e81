/**
 * Guest programs as data: a list of accesses that becomes 32-bit x86 machine code, small enough for every vCPU of
 * Upcall. Tests write, generate and shrink the list, and never see a byte of code.
 *
 * A program has one accumulator of 32 bits (EAX, 0 at first) and appends what it wants to keep to its results, in guest
 * memory. It runs in flat protected mode with interrupts off, and halts at its end.
 *
 * **Example** (A guest that reads a port three times and reports to another)
 *
 * ```ts
 * import * as Result from "effect/Result"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 *
 * const program = Result.getOrThrow(GuestProgram.assemble([
 *   { _tag: "Loop", times: 3, body: [{ _tag: "PortIn", port: 0x60, size: 1 }, { _tag: "Keep" }] },
 *   { _tag: "PortOut", port: 0xf4, size: 1, value: 0 }
 * ]))
 * console.log(program.resultBytes, program.plan.memoryBytes)
 * // => 12 8192
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { GuestAddress, hex, Port } from "../domain/Address.ts"
import { ImagePlan } from "../domain/ImagePlan.ts"
import { U32 } from "../domain/IoRequest.ts"
import { PAGE_BYTES } from "../domain/Limits.ts"
import * as VcpuRegisters from "../domain/VcpuRegisters.ts"
import type { GuestMemory, GuestMemoryError } from "../services/GuestMemory.ts"
import { MachineCode } from "./program/MachineCode.ts"

/**
 * The most loops inside each other.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_LOOP_DEPTH = 8

/**
 * The most accesses that a program makes, loops counted out, so that every program ends in about a second.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_STEPS = 1_000_000

const width = Schema.Literals([1, 2, 4])
const times = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: MAX_STEPS }))
const memoryEnd = 2 ** 32

const port = { port: Port, size: width }
const memory = {
  address: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: memoryEnd - 1 })),
  size: width
}

/**
 * - `PortIn`: reads a port into the low `size` bytes of the accumulator.
 * - `PortOut`: writes the low `size` bytes of `value` to a port; without `value`, of the accumulator. A `value` stays in
 *   the accumulator.
 * - `StringIn`: `count` reads of a port by one REP INS; all of them go to the results, filled up to a multiple of 4.
 * - `StringOut`: writes `bytes` to a port by one REP OUTS, `size` bytes at a time.
 * - `Load`, `Store`: like the two of ports, with a guest physical address below 4 GiB.
 * - `Keep`: appends the accumulator to the results, 4 bytes, lowest first.
 * - `Loop`: does `body` 1 or more times.
 * - `Code`: machine code of the test's own. It goes on behind its last byte, leaves EDI (where the next result goes) and
 *   ESP as they were, and may use 2 KiB of stack.
 * - `Halt`: ends the program early.
 *
 * Sizes and counts are in bytes and accesses.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Operation = Schema.TaggedUnion({
  PortIn: port,
  PortOut: { ...port, value: Schema.optionalKey(U32) },
  StringIn: { ...port, count: times },
  StringOut: { ...port, bytes: Schema.Uint8Array },
  Load: memory,
  Store: { ...memory, value: Schema.optionalKey(U32) },
  Keep: {},
  Code: { bytes: Schema.Uint8Array },
  Halt: {},
  Loop: {
    times,
    body: Schema.Array(Schema.suspend((): Schema.Codec<Operation, OperationInput> => Operation))
  }
})

type Access<A> = { readonly port: A; readonly size: 1 | 2 | 4 }
type MemoryAccess = { readonly address: number; readonly size: 1 | 2 | 4 }

type Plain<P> =
  | { readonly _tag: "PortIn" } & Access<P>
  | { readonly _tag: "PortOut"; readonly value?: number } & Access<P>
  | { readonly _tag: "StringIn"; readonly count: number } & Access<P>
  | { readonly _tag: "StringOut"; readonly bytes: Uint8Array } & Access<P>
  | { readonly _tag: "Load" } & MemoryAccess
  | { readonly _tag: "Store"; readonly value?: number } & MemoryAccess
  | { readonly _tag: "Keep" }
  | { readonly _tag: "Code"; readonly bytes: Uint8Array }
  | { readonly _tag: "Halt" }

interface Loop<Self> {
  readonly _tag: "Loop"
  readonly times: number
  readonly body: ReadonlyArray<Self>
}

/**
 * One step of a program.
 *
 * @category models
 * @since 0.1.0
 */
export type Operation = Plain<Port> | Loop<Operation>

/**
 * An operation as tests write it down: any number may stand for a port until it is assembled.
 *
 * @category models
 * @since 0.1.0
 */
export type OperationInput = Plain<number> | Loop<OperationInput>

/**
 * - `BadOperation`: an operation is not one; `problem` names the place.
 * - `TooDeep`: more than {@link MAX_LOOP_DEPTH} loops inside each other.
 * - `TooLong`: it would take more than {@link MAX_STEPS} accesses.
 * - `BadBytes`: the bytes of a `StringOut` are no multiple of its size, or none.
 * - `TooBig`: code, data and results need more RAM than they were given.
 *
 * @category errors
 * @since 0.1.0
 */
export const GuestProgramErrorReason = Schema.TaggedUnion({
  BadOperation: { problem: Schema.String },
  TooDeep: { limit: Schema.Number },
  TooLong: { steps: Schema.Number, limit: Schema.Number },
  BadBytes: { bytes: Schema.Number, size: Schema.Number },
  TooBig: { needed: Schema.Number, memoryBytes: Schema.Number }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type GuestProgramErrorReason = typeof GuestProgramErrorReason.Type

/**
 * A list of operations that is no program.
 *
 * @category errors
 * @since 0.1.0
 */
export class GuestProgramError extends Schema.TaggedError<GuestProgramError>()("GuestProgramError", {
  reason: GuestProgramErrorReason
}) {
  override get message(): string {
    const { reason } = this
    switch (reason._tag) {
      case "BadOperation":
        return `this is no guest program: ${reason.problem}`
      case "TooDeep":
        return `the program has more than ${reason.limit} loops inside each other; unroll the innermost`
      case "TooLong":
        return `the program takes ${reason.steps} steps, ${reason.limit} is the limit; loop less often`
      case "BadBytes":
        return `${reason.bytes} bytes cannot be written ${reason.size} at a time; give a positive multiple of that`
      case "TooBig":
        return `the program needs ${hex(reason.needed)} bytes of RAM and was given ${hex(reason.memoryBytes)}; ` +
          "give more, or keep fewer results"
    }
  }
}

/**
 * A program that can be loaded. Its stack, code and results lie in the first `plan.memoryBytes` of RAM; the results
 * begin at `resultAddress` and take `resultBytes` at most.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestProgram {
  readonly operations: ReadonlyArray<Operation>
  readonly plan: ImagePlan
  readonly resultAddress: GuestAddress
  readonly resultBytes: number
}

// One page of stack, then the word that says where the results end, then data and code, then the results.
const STACK_TOP = PAGE_BYTES
const RESULT_END = STACK_TOP
const DATA = RESULT_END + 16

const decodeOperations = Schema.decodeUnknownResult(Schema.Array(Operation))

const fail = (reason: GuestProgramErrorReason) => Result.fail(new GuestProgramError({ reason }))

/** Walks without recursion, since it stands before the limit on depth, and before anything was checked. */
const isTooDeep = (operations: ReadonlyArray<unknown>): boolean => {
  let level = operations
  for (let depth = 0; depth <= MAX_LOOP_DEPTH; depth++) {
    const bodies = level.flatMap((operation) => {
      const body = (operation as { readonly body?: unknown } | null | undefined)?.body
      return Array.isArray(body) ? [body as ReadonlyArray<unknown>] : []
    })
    if (bodies.length === 0) return false
    level = bodies.flat()
  }
  return true
}

interface Size {
  readonly steps: number
  readonly resultBytes: number
}

const sizeOf = (operations: ReadonlyArray<Operation>): Size => {
  let steps = 0
  let resultBytes = 0
  for (const operation of operations) {
    switch (operation._tag) {
      case "StringIn":
        steps += operation.count
        resultBytes += alignTo(4, operation.count * operation.size)
        break
      case "StringOut":
        steps += operation.bytes.length / operation.size
        break
      case "Loop": {
        const body = sizeOf(operation.body)
        // A loop takes a step of its own, so that an empty one counts too.
        steps += operation.times * (body.steps + 1)
        resultBytes += operation.times * body.resultBytes
        break
      }
      case "Keep":
        steps++
        resultBytes += 4
        break
      default:
        steps++
    }
  }
  return { steps, resultBytes }
}

const alignTo = (step: number, value: number): number => Math.ceil(value / step) * step

const badBytes = (operations: ReadonlyArray<Operation>): GuestProgramErrorReason | undefined => {
  for (const operation of operations) {
    if (operation._tag === "Loop") {
      const inside = badBytes(operation.body)
      if (inside !== undefined) return inside
    } else if (operation._tag === "StringOut") {
      const { bytes, size } = operation
      if (bytes.length === 0 || bytes.length % size !== 0) return { _tag: "BadBytes", bytes: bytes.length, size }
    }
  }
  return undefined
}

const emit = (code: MachineCode, data: Array<number>, operations: ReadonlyArray<Operation>): void => {
  for (const operation of operations) {
    switch (operation._tag) {
      case "PortIn":
        code.portIn(operation.port, operation.size)
        break
      case "PortOut":
        if (operation.value !== undefined) code.setAccumulator(operation.value)
        code.portOut(operation.port, operation.size)
        break
      case "StringIn":
        code.stringIn(operation.port, operation.size, operation.count)
        code.alignDestination()
        break
      case "StringOut": {
        const { bytes, port: to, size } = operation
        code.stringOut(to, size, bytes.length / size, DATA + data.length)
        for (const byte of bytes) data.push(byte)
        break
      }
      case "Load":
        code.load(operation.address, operation.size)
        break
      case "Store":
        if (operation.value !== undefined) code.setAccumulator(operation.value)
        code.store(operation.address, operation.size)
        break
      case "Keep":
        code.appendAccumulator()
        break
      case "Code":
        code.raw(operation.bytes)
        break
      case "Halt":
        emitHalt(code)
        break
      case "Loop":
        code.repeat(operation.times, () => emit(code, data, operation.body))
        break
    }
  }
}

const emitHalt = (code: MachineCode): void => {
  code.storeDestination(RESULT_END)
  code.halt()
}

/**
 * Makes a program of operations. `memoryBytes` is the RAM of the VM that it is for, from guest address 0 on, a multiple
 * of 4096 (default: as much as it needs). Whatever is no program is refused with a `GuestProgramError`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const assemble = (
  operations: ReadonlyArray<OperationInput>,
  options: { readonly memoryBytes?: number | undefined } = {}
): Result.Result<GuestProgram, GuestProgramError> =>
  Result.gen(function*() {
    if (isTooDeep(operations)) return yield* fail({ _tag: "TooDeep", limit: MAX_LOOP_DEPTH })
    const decoded = yield* Result.mapError(
      decodeOperations(operations),
      (error) => new GuestProgramError({ reason: { _tag: "BadOperation", problem: error.message } })
    )
    const bytesProblem = badBytes(decoded)
    if (bytesProblem !== undefined) return yield* fail(bytesProblem)
    const { resultBytes, steps } = sizeOf(decoded)
    if (steps > MAX_STEPS) return yield* fail({ _tag: "TooLong", steps, limit: MAX_STEPS })

    const code = new MachineCode()
    const data: Array<number> = []
    emit(code, data, decoded)
    emitHalt(code)

    const entry = alignTo(16, DATA + data.length)
    const resultAddress = alignTo(16, entry + code.length)
    const needed = alignTo(PAGE_BYTES, resultAddress + resultBytes)
    const memoryBytes = options.memoryBytes ?? needed
    if (needed > memoryBytes) return yield* fail({ _tag: "TooBig", needed, memoryBytes })

    const bytes = new Uint8Array(resultAddress - RESULT_END)
    bytes.set(data, DATA - RESULT_END)
    bytes.set(code.toBytes(), entry - RESULT_END)
    const plan = ImagePlan.make({
      memoryBytes,
      segments: [{ name: "guest program", address: GuestAddress.make(RESULT_END), bytes }],
      registers: VcpuRegisters.flat32({ entry, stack: STACK_TOP, gprs: { rdi: BigInt(resultAddress) } })
    })
    return { operations: decoded, plan, resultAddress: GuestAddress.make(resultAddress), resultBytes }
  })

/**
 * What a program that ran to its end appended to its results. Empty when it did not come to its end.
 *
 * @category accessors
 * @since 0.1.0
 */
export const results = (
  program: GuestProgram,
  guestMemory: GuestMemory["Service"]
): Effect.Effect<Uint8Array, GuestMemoryError> =>
  Effect.flatMap(guestMemory.read32(RESULT_END), (end) => {
    // A guest can write anything there.
    const bytes = end - program.resultAddress
    return bytes > 0 && bytes <= program.resultBytes
      ? guestMemory.read(program.resultAddress, bytes)
      : Effect.succeed(new Uint8Array(0))
  })
