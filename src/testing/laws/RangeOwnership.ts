/** Law 7. The oracle is a map from each address of a small part of each space to the client that owns it. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import { hex } from "../../domain/Address.ts"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoClient, IoDispatcherErrorReason } from "../../services/IoDispatcher.ts"
import { VirtualMachine } from "../../services/VirtualMachine.ts"
import * as Generator from "../Generator.ts"
import * as GuestProgram from "../GuestProgram.ts"
import * as Law from "../Law.ts"

/** A range, or the so-manieth one that a client owns; both are counted round. */
type Named = IoRange.IoRange | number

/** `client` counts the clients in order of their registration, from the first one again behind the last. */
type Step =
  | { readonly _tag: "Register"; readonly ranges: ReadonlyArray<IoRange.IoRange> }
  | { readonly _tag: "Add"; readonly client: number; readonly range: IoRange.IoRange }
  | { readonly _tag: "Remove"; readonly client: number; readonly range: Named }
  | { readonly _tag: "Move"; readonly client: number; readonly from: Named; readonly to: IoRange.IoRange }
  | { readonly _tag: "Close"; readonly client: number }
  | { readonly _tag: "RegisterDefault" }

const PORTS = 0x300
const MMIO = 0xe000_0000
const LENGTH = 12
const FUNCTIONS = [[0, 0, 0], [0, 0, 1], [255, 31, 7]] as const
const ANY = "the rest of PCI"
const DEFAULT_NAME = "default"

/** Every address of a range, by name. */
const addressesOf = (range: IoRange.IoRange): Array<string> => {
  switch (range._tag) {
    case "Port":
    case "Mmio":
      return Array.from({ length: range.end - range.start + 1 }, (_, at) => `${range._tag} ${hex(range.start + at)}`)
    case "PciFunction":
      return [`PCI ${range.bus}:${range.device}.${range.function}`]
    case "PciAny":
      return [ANY]
  }
}

interface Owner {
  readonly name: string
  ranges: ReadonlyArray<IoRange.IoRange>
  isClosed: boolean
}

const isSame = (a: IoRange.IoRange, b: IoRange.IoRange): boolean => IoRange.format(a) === IoRange.format(b)

const without = (ranges: ReadonlyArray<IoRange.IoRange>, range: IoRange.IoRange) =>
  ranges.filter((other) => !isSame(other, range))

const named = ({ ranges }: Owner, which: Named): IoRange.IoRange =>
  typeof which === "number" ? ranges[which % ranges.length] ?? IoRange.pciAny : which

class Model {
  readonly owners: Array<Owner> = []
  defaultOwner: string | undefined

  /** Who owns each address that is owned. */
  map(): Map<string, string> {
    return new Map(
      this.owners.flatMap(({ name, ranges }) =>
        ranges.flatMap(addressesOf).map((address): [string, string] => [address, name])
      )
    )
  }

  /** Adds all of the ranges or none: the names of those who own an address of the first that cannot be added. */
  add(owner: Owner, ranges: ReadonlyArray<IoRange.IoRange>): Refusal | undefined {
    const owned = this.map()
    for (const range of ranges) {
      const taken = new Set(addressesOf(range).flatMap((address) => owned.get(address) ?? []))
      if (taken.size > 0) return { _tag: "Overlap", client: owner.name, range, owners: taken }
      for (const address of addressesOf(range)) owned.set(address, owner.name)
    }
    owner.ranges = [...owner.ranges, ...ranges]
    return undefined
  }
}

type Refusal =
  | {
    readonly _tag: "Overlap"
    readonly client: string
    readonly range: IoRange.IoRange
    readonly owners: ReadonlySet<string>
  }
  | { readonly _tag: "NoSuchRange" | "Closed" | "DefaultTaken" }

/** Why a refusal is not the one that it must be. */
const wrongRefusal = (must: Refusal, reason: IoDispatcherErrorReason): string | undefined => {
  if (must._tag !== "Overlap") return reason._tag === must._tag ? undefined : `it must be refused as ${must._tag}`
  if (reason._tag !== "Overlap") return "it must be refused as an overlap"
  const shared = addressesOf(reason.range).filter((address) => addressesOf(reason.owned).includes(address))
  const isRight = reason.client === must.client && isSame(reason.range, must.range) && must.owners.has(reason.owner) &&
    shared.length > 0
  return isRight ? undefined : `it must name ${must.client} with ${IoRange.format(must.range)}, and an owner of it`
}

interface Probe {
  /** As {@link addressesOf} names it. */
  readonly address: string
  readonly read: GuestProgram.OperationInput
}

const portProbe = (port: number): Probe => ({
  address: `Port ${hex(port)}`,
  read: { _tag: "PortIn", port, size: 1 }
})

const memoryProbe = (address: number): Probe => ({
  address: `Mmio ${hex(address)}`,
  read: { _tag: "Load", address, size: 1 }
})

const functionProbe = (bus: number, device: number, fn: number): Probe => ({
  address: `PCI ${bus}:${device}.${fn}`,
  read: { _tag: "PciRead", bus, device, function: fn, register: 0, size: 1 }
})

/** Reads of every address of a range, and of those beside it. */
const probesOf = (range: IoRange.IoRange): Array<Probe> => {
  switch (range._tag) {
    case "Port":
    case "Mmio": {
      const probe = range._tag === "Port" ? portProbe : memoryProbe
      return Array.from({ length: range.end - range.start + 3 }, (_, at) => probe(range.start - 1 + at))
    }
    case "PciFunction":
      return [functionProbe(range.bus, range.device, range.function)]
    case "PciAny":
      return FUNCTIONS.map(([bus, device, fn]) => functionProbe(bus, device, fn))
  }
}

const rangesIn = (step: Step): ReadonlyArray<Named> => {
  switch (step._tag) {
    case "Register":
      return step.ranges
    case "Add":
    case "Remove":
      return [step.range]
    case "Move":
      return [step.from, step.to]
    default:
      return []
  }
}

/** Reads of every address that the steps are about, each once. */
const probesFor = (steps: ReadonlyArray<Step>): ReadonlyArray<Probe> => {
  const ranges = steps.flatMap(rangesIn).filter((range) => typeof range !== "number")
  return [...new Map(ranges.flatMap(probesOf).map((probe) => [probe.address, probe])).values()]
}

const MEMORY_BYTES = 0x2000

const NOBODY = 0xff

interface Registered {
  readonly client: IoClient
  readonly scope: Scope.Closeable
}

const holds = (steps: ReadonlyArray<Step>) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: MEMORY_BYTES })
    const model = new Model()
    const clients: Array<Registered> = []
    // What a client answers tells who it is.
    const names: Array<string> = []
    const handlerOf = (name: string) => {
      const answer = Effect.succeed(names.push(name))
      return () => answer
    }
    let defaults = 0

    const register = (ranges: ReadonlyArray<IoRange.IoRange>) =>
      Effect.gen(function*() {
        const name = `client ${model.owners.length}`
        const owner: Owner = { name, ranges: [], isClosed: false }
        const must = model.add(owner, ranges)
        const scope = yield* Scope.fork(yield* Effect.scope)
        const result = yield* Effect.result(
          Scope.provide(vm.io.register({ name, ranges, handle: handlerOf(name) }), scope)
        )
        if (Result.isSuccess(result)) {
          model.owners.push(owner)
          clients.push({ client: result.success, scope })
        }
        return { must, result }
      })

    const registerDefault = Effect.gen(function*() {
      const name = `${DEFAULT_NAME} ${defaults++}`
      const must: Refusal | undefined = model.defaultOwner === undefined ? undefined : { _tag: "DefaultTaken" }
      model.defaultOwner ??= name
      const result = yield* Effect.result(vm.io.registerDefault({ name, handle: handlerOf(name) }))
      return { must, result }
    })

    const change = (
      at: number,
      expect: (owner: Owner) => Refusal | undefined,
      act: (client: IoClient, owner: Owner) => ReturnType<IoClient["addRange"]>
    ) =>
      Effect.gen(function*() {
        const index = at % clients.length
        const owner = model.owners[index]!
        const acting = act(clients[index]!.client, owner)
        const must = owner.isClosed ? { _tag: "Closed" } as const : expect(owner)
        return { must, result: yield* Effect.result(acting) }
      })

    const add = ({ client: at, range: wanted }: Extract<Step, { readonly _tag: "Add" }>) =>
      change(at, (owner) => model.add(owner, [wanted]), ({ addRange }) => addRange(wanted))

    const remove = ({ client: at, range: which }: Extract<Step, { readonly _tag: "Remove" }>) =>
      change(at, (owner) => {
        const given = named(owner, which)
        if (!owner.ranges.some((owned) => isSame(owned, given))) return { _tag: "NoSuchRange" }
        owner.ranges = without(owner.ranges, given)
        return undefined
      }, ({ removeRange }, owner) => removeRange(named(owner, which)))

    const move = ({ client: at, from: which, to }: Extract<Step, { readonly _tag: "Move" }>) =>
      change(at, (owner) => {
        const before = owner.ranges
        const from = named(owner, which)
        if (!before.some((owned) => isSame(owned, from))) return { _tag: "NoSuchRange" }
        owner.ranges = without(before, from)
        const refusal = model.add(owner, [to])
        if (refusal !== undefined) owner.ranges = before
        return refusal
      }, ({ moveRange }, owner) => moveRange(named(owner, which), to))

    const take = (
      step: Step
    ): Effect.Effect<
      {
        readonly must: Refusal | undefined
        readonly result: Result.Result<unknown, { readonly message: string; readonly reason: IoDispatcherErrorReason }>
      },
      never,
      Scope.Scope
    > => {
      switch (step._tag) {
        case "Register":
          return register(step.ranges)
        case "RegisterDefault":
          return registerDefault
        case "Add":
          return add(step)
        case "Remove":
          return remove(step)
        case "Move":
          return move(step)
        case "Close":
          return Effect.gen(function*() {
            const index = step.client % clients.length
            yield* Scope.close(clients[index]!.scope, Exit.void)
            Object.assign(model.owners[index]!, { ranges: [], isClosed: true })
            return { must: undefined, result: Result.void }
          })
      }
    }

    for (const [index, step] of steps.entries()) {
      if ("client" in step && clients.length === 0) continue
      const { must, result } = yield* take(step)
      const at = `step ${index + 1} (${showStep(step)})`
      if (Result.isSuccess(result) && must !== undefined) {
        return yield* Law.broken(`${at} must be refused as ${must._tag}, and was done`)
      }
      if (Result.isFailure(result)) {
        if (must === undefined) {
          return yield* Law.broken(`${at} must be done, and was refused: ${result.failure.message}`)
        }
        const wrong = wrongRefusal(must, result.failure.reason)
        if (wrong !== undefined) return yield* Law.broken(`${at}: ${wrong}, and was: ${result.failure.message}`)
      }
    }

    const probes = probesFor(steps)
    const prober = yield* Effect.fromResult(GuestProgram.assemble(
      probes.flatMap(({ read }) => [read, { _tag: "Keep" }]),
      { memoryBytes: MEMORY_BYTES }
    ))
    yield* vm.load(prober.plan)
    const running = yield* vm.start
    yield* running.ended
    const read = yield* GuestProgram.results(prober, vm.memory)
    const owned = model.map()
    for (const [index, { address }] of probes.entries()) {
      const rest = address.startsWith("PCI") ? owned.get(ANY) : undefined
      const must = owned.get(address) ?? rest ?? model.defaultOwner ?? "nobody"
      const answer = read[4 * index]!
      const is = answer === NOBODY ? "nobody" : names[answer - 1]
      if (is !== must) return yield* Law.broken(`${address} must be answered by ${must}, and was by ${is}`)
    }
  })

const showNamed = (which: Named): string => typeof which === "number" ? `its range ${which}` : IoRange.format(which)

const showStep = (step: Step): string => {
  switch (step._tag) {
    case "Register":
      return `register a client with ${step.ranges.map(IoRange.format).join(", ") || "no range"}`
    case "RegisterDefault":
      return "register a default client"
    case "Add":
      return `client ${step.client}: add ${IoRange.format(step.range)}`
    case "Remove":
      return `client ${step.client}: remove ${showNamed(step.range)}`
    case "Move":
      return `client ${step.client}: move ${showNamed(step.from)} to ${IoRange.format(step.to)}`
    case "Close":
      return `client ${step.client}: close its scope`
  }
}

// Few ranges, so that a range that is named often is one that somebody owns.
const span = (range: (start: number, end: number) => IoRange.IoRange, from: number) =>
  Generator.map(
    Generator.all([Generator.integer(0, LENGTH / 2 - 1), Generator.integer(1, 3)]),
    ([half, length]) => range(from + 2 * half, Math.min(from + 2 * half + length, from + LENGTH) - 1)
  )
const range = Generator.oneOf<IoRange.IoRange>(
  span(IoRange.ports, PORTS),
  span(IoRange.mmio, MMIO),
  Generator.map(Generator.elementOf(FUNCTIONS), ([bus, device, fn]) => IoRange.pciFunction(bus, device, fn)),
  Generator.constant(IoRange.pciAny)
)
const which = Generator.oneOf<Named>(Generator.integer(0, 3), Generator.integer(0, 3), range)
const client = Generator.integer(0, 3)

const step = Generator.oneOf<Step>(
  Generator.map(Generator.array(range, { maxLength: 4 }), (ranges): Step => ({ _tag: "Register", ranges })),
  Generator.map(Generator.all({ client, range }), (chosen): Step => ({ _tag: "Add", ...chosen })),
  Generator.map(Generator.all({ client, from: which, to: range }), (chosen): Step => ({ _tag: "Move", ...chosen })),
  Generator.map(Generator.all({ client, range: which }), (chosen): Step => ({ _tag: "Remove", ...chosen })),
  Generator.oneOf<Step>(
    Generator.map(client, (chosen): Step => ({ _tag: "Close", client: chosen })),
    Generator.constant({ _tag: "RegisterDefault" })
  )
)

export const rangeOwnership = Law.make<ReadonlyArray<Step>>({
  number: 7,
  title: "no address has two owners; a refusal names both and changes nothing; a failed move keeps the old range",
  cases: () => Generator.array(step, { maxLength: 24 }),
  show: (steps) => steps.map((each, index) => `${index + 1}. ${showStep(each)}`).join("\n"),
  holds
})
