/**
 * The case that most laws are about: guest programs on the vCPUs of one VM, among the clients of a world; what is seen
 * of it; and whether that is what the reference says.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { hex, Port } from "../../domain/Address.ts"
import type { DispatchEvent } from "../../domain/DispatchEvent.ts"
import type { EndReason } from "../../domain/EndReason.ts"
import type { GuestMemoryError } from "../../services/GuestMemory.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { VirtualMachine } from "../../services/VirtualMachine.ts"
import type { VirtualMachineError } from "../../services/VirtualMachineError.ts"
import type { CreatedVm, RunningVm } from "../../services/Vm.ts"
import * as Arbitraries from "../Arbitraries.ts"
import * as Generator from "../Generator.ts"
import * as GuestProgram from "../GuestProgram.ts"
import * as GuestRun from "../GuestRun.ts"
import type { Subject } from "../Law.ts"
import * as Trace from "../Trace.ts"
import { isAboveModule } from "./aboveModule.ts"
import { CONFIG_DATA_PORT, LAST_CONFIG_PORT, meetsConfigPorts } from "./configPorts.ts"
import * as Reference from "./Reference.ts"
import * as World from "./World.ts"

type Operation = GuestProgram.Operation
type Programs = ReadonlyArray<ReadonlyArray<Operation>>

/** Programs, the first one for vCPU 0, and the clients that they meet. */
export interface ProgramCase {
  readonly world: World.World
  readonly programs: Programs
}

export interface Options extends Pick<Arbitraries.GuestProgramsOptions, "maxDepth" | "maxLength" | "maxVcpus" | "pci"> {
  readonly answers?: Generator.Generator<World.Answers> | undefined
}

// Programs are generated for one window of each space and moved to the case's: generators are dear to build.
const PORTS = 0x300
const MMIO = 0xe000_0000

const windowAt = (start: number) => ({ start, end: start + World.WINDOW_LENGTH - 1 })

/** PCI accesses go to functions that a world's clients own, or nearly own. */
const moveTo = (operation: Operation, places: World.Places): Operation => {
  switch (operation._tag) {
    case "PortIn":
    case "PortOut":
    case "StringIn":
    case "StringOut":
      return { ...operation, port: Port.make(operation.port - PORTS + places.ports) }
    case "Load":
    case "Store":
      return { ...operation, address: operation.address - MMIO + places.mmio }
    case "PciRead":
    case "PciWrite": {
      const { bus, device, function: fn } = operation
      return { ...operation, ...World.FUNCTIONS[(bus + device + fn) % World.FUNCTIONS.length]! }
    }
    case "Loop":
      return { ...operation, body: operation.body.map((inner) => moveTo(inner, places)) }
    default:
      return operation
  }
}

const usesConfig = (operation: Operation): boolean => {
  switch (operation._tag) {
    case "PciRead":
    case "PciWrite":
      return true
    case "Loop":
      return operation.body.some(usesConfig)
    default:
      return "port" in operation && meetsConfigPorts(operation)
  }
}

/** A program without what depends on PCI's address register, which the vCPUs of a VM share. */
export const withoutConfig = (operations: ReadonlyArray<Operation>): ReadonlyArray<Operation> =>
  operations.filter((operation) => !usesConfig(operation))

/** A module makes a PCI request of an access that crosses the end of the data register, and there is none such. */
const withoutCrossing = (operations: ReadonlyArray<Operation>): ReadonlyArray<Operation> =>
  operations.flatMap((operation): ReadonlyArray<Operation> => {
    if (operation._tag === "Loop") return [{ ...operation, body: [...withoutCrossing(operation.body)] }]
    const crosses = "port" in operation && operation.port >= CONFIG_DATA_PORT && operation.port <= LAST_CONFIG_PORT &&
      operation.port + operation.size - 1 > LAST_CONFIG_PORT
    return crosses ? [] : [operation]
  })

/** What a second vCPU finds in PCI's address register would depend on how the two take turns. */
const oneUsesConfig = (programs: Programs): Programs => {
  const user = programs.findIndex((operations) => operations.some(usesConfig))
  return programs.map((operations, vcpu) => vcpu === user ? operations : withoutConfig(operations))
}

const isWide = (operation: Operation): boolean =>
  operation._tag === "Loop" ? operation.body.some(isWide) : "size" in operation && operation.size === 8

/** 64-bit code where there must be some, or else what every hypervisor runs. */
const modeOf = (programs: Programs): GuestProgram.Mode =>
  programs.some((operations) => operations.some(isWide)) ? "Long64" : "Protected32"

/** Cases that this hypervisor can run: accesses meet ranges, their edges, and the gaps between them. */
export const cases = (subject: Subject, options: Options = {}): Generator.Generator<ProgramCase> =>
  Generator.map(
    Generator.all({
      placed: World.placed(subject.profile, options.answers),
      programs: Arbitraries.guestPrograms(subject.profile, {
        mode: subject.profile.modes.includes("Long64") ? "Long64" : "Protected32",
        maxVcpus: 3,
        maxLength: 8,
        maxDepth: 1,
        ports: windowAt(PORTS),
        mmio: windowAt(MMIO),
        ...options
      })
    }),
    ({ placed: { places, world }, programs }) => ({
      world,
      programs: oneUsesConfig(
        programs.map((operations) => {
          const moved = operations.map((operation) => moveTo(operation, places))
          return isAboveModule(subject) ? withoutCrossing(moved) : moved
        })
      )
    })
  )

/** What is seen of a case. */
export interface Observation {
  readonly end: EndReason
  readonly entries: ReadonlyArray<Trace.TraceEntry>
  readonly results: ReadonlyArray<Uint8Array>
  readonly asked: World.Log
  readonly events: ReadonlyArray<DispatchEvent>
}

/** A case in its VM, and what can be seen of it at any time. */
interface InVm<V> {
  readonly vm: V
  readonly observe: (end: EndReason) => Effect.Effect<Observation, GuestMemoryError>
}

type Problem = VirtualMachineError | IoDispatcherError | GuestMemoryError

/** Puts a case into a VM of its own that has not started; it lives until the scope closes. */
export const prepare = (
  { programs, world }: ProgramCase,
  misbehave?: World.Misbehave
): Effect.Effect<InVm<CreatedVm>, Problem, VirtualMachine | Scope.Scope> =>
  Effect.gen(function*() {
    const assembled = Result.getOrThrow(GuestProgram.assembleAll(programs, { mode: modeOf(programs) }))
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: assembled.plan.memoryBytes, vcpus: programs.length })
    const asked = yield* vm.attach(World.install(vm, world, misbehave))
    const recording = yield* Trace.record(vm)
    yield* GuestRun.load(vm, assembled)
    return {
      vm,
      observe: (end) =>
        Effect.gen(function*() {
          return {
            end,
            entries: (yield* recording.trace).entries,
            results: yield* Effect.forEach(assembled.vcpus, (program) => GuestProgram.results(program, vm.memory)),
            asked: [...asked],
            events: yield* vm.io.recentEvents
          }
        })
    }
  })

/** As {@link prepare}, and starts it. */
export const start = (
  value: ProgramCase,
  misbehave?: World.Misbehave
): Effect.Effect<InVm<RunningVm>, Problem, VirtualMachine | Scope.Scope> =>
  Effect.flatMap(
    prepare(value, misbehave),
    ({ observe, vm }) => Effect.map(vm.start, (running) => ({ vm: running, observe }))
  )

/** Runs a case to its end. */
export const run = (value: ProgramCase): Effect.Effect<Observation, Problem, VirtualMachine> =>
  Effect.scoped(Effect.gen(function*() {
    const { observe, vm } = yield* start(value)
    return yield* observe(yield* vm.ended)
  }))

const formatBytes = (bytes: Uint8Array): string =>
  bytes.length === 0 ? "nothing" : Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ")

/** Why what was seen of one vCPU is not what the reference says, if it is not. */
const problemOfVcpu = (
  expected: Reference.VcpuOutcome,
  served: ReadonlyArray<Reference.Served>,
  results: Uint8Array
): string | undefined => {
  const difference = Reference.firstDifference(expected.served, served)
  if (difference !== undefined) return difference
  const [must, are] = [formatBytes(expected.results), formatBytes(results)]
  return must === are ? undefined : `its results must be\n  ${must}\nbut are\n  ${are}`
}

/** What reached handlers is what the dispatcher says it gave them, each request once. */
const problemOfLog = (value: ProgramCase, { asked, entries }: Observation): string | undefined => {
  const isClient = (name: string) => !name.startsWith("(")
  for (const vcpu of value.programs.keys()) {
    const handlers = asked.filter(({ request }) => request.vcpu === vcpu)
    const trace = entries.filter(({ _tag, client, request }) =>
      _tag === "Asked" && request.vcpu === vcpu && isClient(client)
    )
    const problem = Reference.firstDifference(trace, handlers)
    if (problem !== undefined) return `what the handlers were asked by vCPU ${vcpu} differs from the trace: ${problem}`
  }
  return undefined
}

/** Why what the guest saw is not what it must see with such a dispatcher; `undefined` when it is. */
export const problemOfGuest = (
  programs: Programs,
  seen: Observation,
  dispatcher: Pick<Reference.Dispatcher, "serve">
): string | undefined => {
  if (seen.end._tag !== "Halted") return `the guest must halt, and its end was ${JSON.stringify(seen.end)}`
  const served = Reference.servedIn(seen.entries, programs.length)
  const expected = Reference.runOn(dispatcher, programs, Reference.inPiecesOf(served))
  for (const [vcpu, outcome] of expected.entries()) {
    const problem = problemOfVcpu(outcome, served[vcpu]!, seen.results[vcpu]!)
    if (problem !== undefined) return `vCPU ${vcpu}: ${problem}`
  }
  return undefined
}

/** Why what was seen is not what the reference says; `undefined` when it is. */
export const problemOf = (value: ProgramCase, seen: Observation): string | undefined =>
  problemOfGuest(value.programs, seen, new Reference.Dispatcher(value.world)) ?? problemOfLog(value, seen)

const formatOperation = (operation: Operation, indent: string): Array<string> => {
  const bytes = "size" in operation ? operation.size === 1 ? "1 byte" : `${operation.size} bytes` : ""
  const value = "value" in operation && operation.value !== undefined ? hex(operation.value) : "the accumulator"
  const at = (what: string) => [`${indent}${what}`]
  switch (operation._tag) {
    case "PortIn":
      return at(`read ${bytes} from port ${hex(operation.port)}`)
    case "PortOut":
      return at(`write ${bytes} of ${value} to port ${hex(operation.port)}`)
    case "StringIn":
      return at(`read ${operation.count} times ${bytes} from port ${hex(operation.port)} (REP INS)`)
    case "StringOut":
      return at(`write ${bytes} at a time of ${formatBytes(operation.bytes)} to port ${hex(operation.port)} (REP OUTS)`)
    case "Load":
      return at(`load ${bytes} from ${hex(operation.address)}`)
    case "Store":
      return at(`store ${bytes} of ${value} to ${hex(operation.address)}`)
    case "PciRead":
    case "PciWrite": {
      const { bus, device, function: fn, register } = operation
      const place = `register ${hex(register)} of PCI ${bus}:${device}.${fn}`
      return at(operation._tag === "PciRead" ? `read ${bytes} from ${place}` : `write ${bytes} of ${value} to ${place}`)
    }
    case "Work":
      return at(`work for ${operation.rounds} rounds`)
    case "Keep":
      return at(operation.size === undefined ? "keep the accumulator" : `keep ${bytes} of the accumulator`)
    case "Halt":
      return at("halt")
    case "Code":
      return at(`code ${formatBytes(operation.bytes)}`)
    case "Loop":
      return [
        `${indent}${operation.times} times:`,
        ...operation.body.flatMap((inner) => formatOperation(inner, `${indent}  `))
      ]
  }
}

/** Programs for people, an operation a line. */
const formatPrograms = (programs: Programs): string =>
  programs.flatMap((operations, vcpu) => [
    `vCPU ${vcpu}:`,
    ...operations.length === 0 ? ["  (halts at once)"] : operations.flatMap((each) => formatOperation(each, "  "))
  ]).join("\n")

export const show = ({ programs, world }: ProgramCase): string => `${World.format(world)}\n${formatPrograms(programs)}`
