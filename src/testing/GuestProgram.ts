/**
 * Guest programs as data: a list of accesses that becomes x86 machine code, small enough for every vCPU of Upcall.
 * Tests write, generate and shrink the list, and never see a byte of code.
 *
 * A program has one accumulator (EAX, 0 at first) and appends what it wants to keep to its results, in guest memory. It
 * runs with interrupts off, and halts at its end. {@link assemble} makes a program for one vCPU, {@link assembleAll}
 * one for each of several.
 *
 * It is 32-bit code in flat protected mode, or 64-bit code with memory mapped to itself: {@link Mode}. The same list
 * makes the same accesses and has the same results in both; loads, stores and results of 8 bytes are for 64-bit code
 * alone, where the accumulator is RAX.
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
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { ImagePlan } from "../domain/ImagePlan.ts"
import { U32, U64 } from "../domain/IoRequest.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../domain/Limits.ts"
import * as VcpuRegisters from "../domain/VcpuRegisters.ts"
import { pageTables, TABLE_BYTES } from "../layers/images/internal/identityMap.ts"
import type { GuestMemory, GuestMemoryError } from "../services/GuestMemory.ts"
import { isTooDeep, problemIn, sizeOf } from "./program/checks.ts"
import type { PciRegister } from "./program/ConfigWord.ts"
import { Emitter } from "./program/Emitter.ts"
import { LongCode } from "./program/LongCode.ts"
import { MachineCode } from "./program/MachineCode.ts"
import * as Work from "./program/Work.ts"

/**
 * The most loops inside each other.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_LOOP_DEPTH = 8

/**
 * The most accesses and rounds of work that the programs of one VM make together, loops counted out, so that every run
 * ends in about a second.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_STEPS = 1_000_000

/**
 * The processor mode that a program is code for: 32-bit protected mode without paging, or 64-bit mode.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Mode = Schema.Literals(["Protected32", "Long64"])

/**
 * @category models
 * @since 0.1.0
 */
export type Mode = typeof Mode.Type

const width = Schema.Literals([1, 2, 4])
const times = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: MAX_STEPS }))
const memoryEnd = 2 ** 32
const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

const port = { port: Port, size: width }
const memory = { address: upTo(memoryEnd - 1), size: Schema.Literals([1, 2, 4, 8]) }
const pci = { bus: upTo(255), device: upTo(31), function: upTo(7), register: upTo(0xfff), size: width }

/**
 * - `PortIn`: reads a port into the low `size` bytes of the accumulator. In 64-bit mode 4 bytes clear those above them.
 * - `PortOut`: writes the low `size` bytes of `value` to a port; without `value`, of the accumulator. A `value` stays in
 *   the accumulator.
 * - `StringIn`: `count` reads of a port by one REP INS; all of them go to the results, filled up to a multiple of 4.
 * - `StringOut`: writes `bytes` to a port by one REP OUTS, `size` bytes at a time.
 * - `Load`, `Store`: like the two of ports, with a guest physical address below 4 GiB. Only a `value` of 8 bytes may be
 *   a bigint. No vCPU in 32-bit mode makes an access of 8 bytes: {@link assemble} refuses it with `TooWide`.
 * - `PciRead`, `PciWrite`: like the two of ports, with a register (0 to 0xFFF) of a PCI function: the address goes to
 *   port 0xCF8, then the access to 0xCFC and up. The access may not leave its dword. A VM has one address register: two
 *   vCPUs that do this at a time spoil each other's.
 * - `Work`: computes for a while, `rounds` times, with 32 bits; {@link work} tells the accumulator afterwards.
 * - `Keep`: appends the low `size` bytes of the accumulator to the results, lowest first; default 4. 8 bytes are
 *   `TooWide` for 32-bit code.
 * - `Loop`: does `body` 1 or more times.
 * - `Code`: machine code of the test's own, for the program's mode. It goes on behind its last byte, leaves RDI (where
 *   the next result goes) and RSP as they were, and may use 2 KiB of stack.
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
  Store: { ...memory, value: Schema.optionalKey(Schema.Union([U32, U64])) },
  PciRead: pci,
  PciWrite: { ...pci, value: Schema.optionalKey(U32) },
  Work: { rounds: times },
  Keep: { size: Schema.optionalKey(Schema.Literals([4, 8])) },
  Code: { bytes: Schema.Uint8Array },
  Halt: {},
  Loop: {
    times,
    body: Schema.Array(Schema.suspend((): Schema.Codec<Operation, OperationInput> => Operation))
  }
})

type Access<A> = { readonly port: A; readonly size: 1 | 2 | 4 }
type MemoryAccess = { readonly address: number; readonly size: 1 | 2 | 4 | 8 }
type PciAccess = PciRegister & { readonly size: 1 | 2 | 4 }

type Plain<P> =
  | { readonly _tag: "PortIn" } & Access<P>
  | { readonly _tag: "PortOut"; readonly value?: number } & Access<P>
  | { readonly _tag: "StringIn"; readonly count: number } & Access<P>
  | { readonly _tag: "StringOut"; readonly bytes: Uint8Array } & Access<P>
  | { readonly _tag: "Load" } & MemoryAccess
  | { readonly _tag: "Store"; readonly value?: number | bigint } & MemoryAccess
  | { readonly _tag: "PciRead" } & PciAccess
  | { readonly _tag: "PciWrite"; readonly value?: number } & PciAccess
  | { readonly _tag: "Work"; readonly rounds: number }
  | { readonly _tag: "Keep"; readonly size?: 4 | 8 }
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
 * - `TooLong`: it would take more than {@link MAX_STEPS} steps.
 * - `BadBytes`: the bytes of a `StringOut` are no multiple of its size, or none.
 * - `BadRegister`: a PCI access leaves the dword that it begins in.
 * - `TooWide`: an access or a result of 8 bytes in a program that is 32-bit code.
 * - `BadVcpuCount`: programs for no vCPU, or for more than a VM can have.
 * - `Beyond`: the hypervisor that the programs are for cannot run them.
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
  BadRegister: { register: Schema.Number, size: Schema.Number },
  TooWide: { size: Schema.Number, limit: Schema.Number },
  BadVcpuCount: { vcpus: Schema.Number, limit: Schema.Number },
  Beyond: { hypervisor: Schema.String, problem: Schema.String },
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
      case "BadRegister":
        return `${reason.size} bytes at PCI register ${hex(reason.register)} leave its dword; make two accesses of them`
      case "TooWide":
        return `${reason.size} bytes at a time need a vCPU in 64-bit mode, and this program is 32-bit code; ` +
          `take up to ${reason.limit} bytes, or assemble it for mode Long64`
      case "BadVcpuCount":
        return `there are programs for ${reason.vcpus} vCPUs; give 1 to ${reason.limit}`
      case "Beyond":
        return `the ${reason.hypervisor} hypervisor cannot run this: ${reason.problem}`
      case "TooBig":
        return `the program needs ${hex(reason.needed)} bytes of RAM and was given ${hex(reason.memoryBytes)}; ` +
          "give more, or keep fewer results"
    }
  }
}

/**
 * The program of one vCPU, and where it is in guest memory. Its results begin at `resultAddress` and take `resultBytes`
 * at most; where they end it writes, at its own end, to the word at `resultEnd`. `end` is the first byte behind it.
 *
 * @category models
 * @since 0.1.0
 */
export interface VcpuProgram {
  readonly operations: ReadonlyArray<Operation>
  readonly registers: VcpuRegisters.VcpuRegisters
  readonly resultAddress: GuestAddress
  readonly resultBytes: number
  readonly resultEnd: GuestAddress
  readonly end: GuestAddress
}

/**
 * A program that can be loaded. All that it needs lies in the first `plan.memoryBytes` of RAM.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestProgram extends VcpuProgram {
  readonly plan: ImagePlan
}

/**
 * A program for each vCPU of a VM, the first one for vCPU 0. Each has pages of its own, one behind the other from guest
 * address 0 on: nothing but the operations themselves makes one touch another's memory. In 64-bit mode 24 KiB of page
 * tables follow, which map the first 4 GiB to themselves, and which all vCPUs share. `plan` has the segments of all,
 * and the registers of vCPU 0; the others' are set one by one.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestPrograms {
  readonly vcpus: readonly [VcpuProgram, ...Array<VcpuProgram>]
  readonly plan: ImagePlan
}

/**
 * `mode`: what the programs become code for (default `Protected32`). `memoryBytes`: RAM of the VM that they are for,
 * from guest address 0 on, a multiple of 4096 (default: as much as they need). `profile`: the hypervisor that they are
 * for, which must be able to run them (default: not looked at).
 *
 * @category models
 * @since 0.1.0
 */
export interface AssembleOptions {
  readonly mode?: Mode | undefined
  readonly memoryBytes?: number | undefined
  readonly profile?: HypervisorProfile | undefined
}

// From the first byte of a vCPU's part: one page of stack, then the word that says where its results end, then data and
// code, then the results.
const STACK_BYTES = PAGE_BYTES
const DATA_OFFSET = STACK_BYTES + 16

const decodeOperations = Schema.decodeUnknownResult(Schema.Array(Operation))

const fail = (reason: GuestProgramErrorReason) => Result.fail(new GuestProgramError({ reason }))

const alignTo = (step: number, value: number): number => Math.ceil(value / step) * step

const modeNames: Readonly<Record<Mode, string>> = { Protected32: "32-bit protected mode", Long64: "64-bit mode" }

/** Why a hypervisor cannot run so many vCPUs with a program each. */
const problemOn = (
  profile: HypervisorProfile,
  mode: Mode,
  vcpus: number,
  memoryBytes: number
): string | undefined => {
  if (vcpus > profile.maxVcpus) return `it has ${profile.maxVcpus} vCPUs in a VM, and there are ${vcpus} programs`
  if (vcpus > 1 && !profile.startsAllVcpus) return "it starts vCPU 0 alone; give one program"
  if (!profile.modes.includes(mode)) return `its vCPUs do not start in ${modeNames[mode]}`
  if (memoryBytes > profile.maxRamBytes) {
    return `it has ${hex(profile.maxRamBytes)} bytes of RAM, and ${hex(memoryBytes)} are needed`
  }
  return undefined
}

/**
 * The accumulator after so many rounds of `Work`, of the accumulator before: a u32 of a u32. Different ones stay
 * different.
 *
 * @category values
 * @since 0.1.0
 */
export const work: (accumulator: number, rounds: number) => number = Work.after

interface Assembled {
  readonly program: Omit<VcpuProgram, "registers">
  readonly start: VcpuRegisters.Flat32Options
  readonly segment: ImagePlan["segments"][number]
}

/** Puts a vCPU's program into the pages from `base` on. */
const assembleAt = (
  base: number,
  name: string,
  mode: Mode,
  operations: ReadonlyArray<Operation>,
  resultBytes: number
): Assembled => {
  const begin = base + STACK_BYTES
  const dataAddress = base + DATA_OFFSET
  const emitter = new Emitter(mode === "Long64" ? new LongCode() : new MachineCode(), dataAddress, begin)
  emitter.all(operations)
  emitter.halt()
  const { code, data } = emitter
  const entry = alignTo(16, dataAddress + data.length)
  const resultAddress = alignTo(16, entry + code.length)
  const bytes = new Uint8Array(resultAddress - begin)
  bytes.set(data, dataAddress - begin)
  bytes.set(code.toBytes(), entry - begin)
  return {
    program: {
      operations,
      resultAddress: GuestAddress.make(resultAddress),
      resultBytes,
      resultEnd: GuestAddress.make(begin),
      end: GuestAddress.make(alignTo(PAGE_BYTES, resultAddress + resultBytes))
    },
    // The stack grows down from the program's first byte.
    start: { entry, stack: begin, gprs: { rdi: BigInt(resultAddress) } },
    segment: { name, address: GuestAddress.make(begin), bytes }
  }
}

const decode = (
  operations: ReadonlyArray<OperationInput>,
  mode: Mode
): Result.Result<ReadonlyArray<Operation>, GuestProgramError> =>
  Result.gen(function*() {
    if (isTooDeep(operations, MAX_LOOP_DEPTH)) return yield* fail({ _tag: "TooDeep", limit: MAX_LOOP_DEPTH })
    const decoded = yield* Result.mapError(
      decodeOperations(operations),
      (error) => new GuestProgramError({ reason: { _tag: "BadOperation", problem: error.message } })
    )
    const problem = problemIn(decoded, mode === "Long64" ? 8 : 4)
    return problem === undefined ? decoded : yield* fail(problem)
  })

/**
 * Makes a program for each vCPU of a VM, 1 to 16 of them; the first list is vCPU 0's. Whatever is no program is refused
 * with a `GuestProgramError`, and so is what the hypervisor of `options.profile` cannot run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const assembleAll = (
  programs: ReadonlyArray<ReadonlyArray<OperationInput>>,
  options: AssembleOptions = {}
): Result.Result<GuestPrograms, GuestProgramError> =>
  Result.gen(function*() {
    const { mode = "Protected32", profile } = options
    const count = programs.length
    if (count < 1 || count > MAX_VCPUS) return yield* fail({ _tag: "BadVcpuCount", vcpus: count, limit: MAX_VCPUS })
    const decoded: Array<ReadonlyArray<Operation>> = []
    for (const operations of programs) decoded.push(yield* decode(operations, mode))
    const sizes = decoded.map(sizeOf)
    const steps = sizes.reduce((sum, size) => sum + size.steps, 0)
    if (steps > MAX_STEPS) return yield* fail({ _tag: "TooLong", steps, limit: MAX_STEPS })

    const assembled: Array<Assembled> = []
    let end = 0
    for (const [vcpu, operations] of decoded.entries()) {
      const name = count === 1 ? "guest program" : `guest program of vCPU ${vcpu}`
      const each = assembleAt(end, name, mode, operations, sizes[vcpu]!.resultBytes)
      assembled.push(each)
      end = each.program.end
    }
    const needed = mode === "Long64" ? end + TABLE_BYTES : end
    const memoryBytes = options.memoryBytes ?? needed
    if (needed > memoryBytes) return yield* fail({ _tag: "TooBig", needed, memoryBytes })
    const problem = profile === undefined ? undefined : problemOn(profile, mode, count, memoryBytes)
    if (profile !== undefined && problem !== undefined) {
      return yield* fail({ _tag: "Beyond", hypervisor: profile.name, problem })
    }
    const vcpus = assembled.map(({ program, start }): VcpuProgram => ({
      ...program,
      registers: mode === "Long64"
        ? VcpuRegisters.long64({ ...start, pageTables: end })
        : VcpuRegisters.flat32(start)
    }))
    const segments = assembled.map(({ segment }) => segment)
    if (mode === "Long64") {
      segments.push({ name: "page tables", address: GuestAddress.make(end), bytes: pageTables(end) })
    }
    const plan = ImagePlan.make({ memoryBytes, segments, registers: vcpus[0]!.registers })
    return { vcpus: vcpus as [VcpuProgram, ...Array<VcpuProgram>], plan }
  })

/**
 * Makes a program for the only vCPU of a VM. Fails as {@link assembleAll} does.
 *
 * @category constructors
 * @since 0.1.0
 */
export const assemble = (
  operations: ReadonlyArray<OperationInput>,
  options: AssembleOptions = {}
): Result.Result<GuestProgram, GuestProgramError> =>
  Result.map(assembleAll([operations], options), ({ plan, vcpus: [program] }) => ({ ...program, plan }))

/**
 * What a program that ran to its end appended to its results. Empty when it did not come to its end.
 *
 * @category accessors
 * @since 0.1.0
 */
export const results = (
  program: VcpuProgram,
  guestMemory: GuestMemory["Service"]
): Effect.Effect<Uint8Array, GuestMemoryError> =>
  Effect.flatMap(guestMemory.read32(program.resultEnd), (end) => {
    // A guest can write anything there.
    const bytes = end - program.resultAddress
    return bytes > 0 && bytes <= program.resultBytes
      ? guestMemory.read(program.resultAddress, bytes)
      : Effect.succeed(new Uint8Array(0))
  })
