/**
 * The devices of a law's case, as data: who owns which range, and how each answers. What a client answers is a function
 * of the world's seed, the client, the request and how often this vCPU asked before, and of nothing else: so it does
 * not depend on the order in which vCPUs run, and a request that was lost or repeated changes every answer after it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import * as IoRange from "../../domain/IoRange.ts"
import { type IoRequest, type IoValue, U32 } from "../../domain/IoRequest.ts"
import type { IoDispatcher, IoDispatcherError } from "../../services/IoDispatcher.ts"
import type { Machine } from "../../services/Machine.ts"
import * as Generator from "../Generator.ts"

const MAX_TURNS = 64
const guestNanos = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }))

/**
 * How a client answers.
 *
 * - `AtOnce`: with a value that is there already.
 * - `AfterTurns`: from a fiber that lets others run so many times first, perhaps never.
 * - `AfterNanos`: from a fiber that sleeps so much guest time first.
 * - `Nothing`: at once, with nothing at all: a read gives all-ones.
 * - `Fails`, `Dies`: its Effect fails, or dies. `Throws`: the handler throws before there is an Effect.
 * - `TooLate`: not at all, and its requests have a deadline of so much guest time.
 * - `Never`: not at all. The request stays with it until somebody takes it away.
 */
export const Answers = Schema.TaggedUnion({
  AtOnce: {},
  AfterTurns: { turns: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: MAX_TURNS })) },
  AfterNanos: { nanos: guestNanos },
  Nothing: {},
  Fails: {},
  Dies: {},
  Throws: {},
  TooLate: { nanos: guestNanos },
  Never: {}
})
export type Answers = typeof Answers.Type

export const Client = Schema.Struct({
  name: Schema.String,
  ranges: Schema.Array(IoRange.IoRange),
  answers: Answers
})
export type Client = typeof Client.Type

/**
 * - `default`: how the default client answers; there is none without it.
 * - `configFoldedBelow`: what stands below the dispatcher keeps PCI's address register, so no access to it is seen.
 */
export const World = Schema.Struct({
  seed: U32,
  clients: Schema.Array(Client),
  default: Schema.optionalKey(Answers),
  configFoldedBelow: Schema.optionalKey(Schema.Boolean)
})
export type World = typeof World.Type

export const DEFAULT_CLIENT = "default"

export const atOnce: Answers = { _tag: "AtOnce" }

/** Whether what the client says counts; every other way of answering gives all-ones. */
export const hasValue = (answers: Answers): boolean =>
  answers._tag === "AtOnce" || answers._tag === "AfterTurns" || answers._tag === "AfterNanos"

const mix = (words: ReadonlyArray<number>): number => {
  let hash = 0x811c_9dc5
  for (const word of words) {
    hash = Math.imul(hash ^ word, 0x9e37_79b1)
    hash ^= hash >>> 15
  }
  return hash >>> 0
}

const letters = (text: string): Array<number> => Array.from(text, (letter) => letter.charCodeAt(0))

/**
 * What clients say, from their first request on. Ports and PCI answer with 32 bits, MMIO with 64: what lies above the
 * access must be dropped. MMIO is counted byte by byte, for some hypervisors split wide accesses.
 */
export const makeValues = (seed: number): (client: string, request: IoRequest) => number | bigint => {
  const asked = new Map<string, number>()
  const times = (what: string): number => {
    const before = asked.get(what) ?? 0
    asked.set(what, before + 1)
    return before
  }
  return (client, request) => {
    const { vcpu } = request
    const base = [seed, vcpu, ...letters(client)]
    if (request._tag !== "MmioRead" && request._tag !== "MmioWrite") {
      const place = "port" in request
        ? [request.port]
        : [request.bus, request.device, request.function, request.register]
      return mix([...base, ...place, request.size, times(`${client} ${vcpu}`)])
    }
    let value = 0n
    for (let i = 0; i < 8; i++) {
      const address = request.address + i
      const nth = i < request.size ? times(`${client} ${vcpu} ${address}`) : 0
      const byte = mix([...base, address / 2 ** 32, address, nth]) & 0xff
      value |= BigInt(byte) << BigInt(8 * i)
    }
    return value
  }
}

/** What reached a handler. */
interface Asked {
  readonly client: string
  readonly request: IoRequest
}

/** What a world's handlers were asked, all of them together, in order. */
export type Log = ReadonlyArray<Asked>

const act = (answers: Answers, value: number | bigint): Effect.Effect<IoValue, string> => {
  switch (answers._tag) {
    case "AtOnce":
      return Effect.succeed(value)
    case "AfterTurns":
      return Effect.gen(function*() {
        for (let turn = 0; turn < answers.turns; turn++) yield* Effect.yieldNow
        return value
      })
    case "AfterNanos":
      return Effect.as(Effect.sleep(Duration.nanos(BigInt(answers.nanos))), value)
    case "Nothing":
      return Effect.succeed(undefined)
    case "Fails":
      return Effect.fail("this client always fails")
    case "Dies":
      return Effect.die("this client always dies")
    case "Throws":
      throw new Error("this client always throws")
    case "TooLate":
    case "Never":
      return Effect.never
  }
}

const deadlineOf = (answers: Answers): { readonly deadline?: Duration.Duration } =>
  answers._tag === "TooLate" ? { deadline: Duration.nanos(BigInt(answers.nanos)) } : {}

/** Answers a request in place of its client, or throws. */
export type Misbehave = (request: IoRequest) => Effect.Effect<IoValue, unknown> | undefined

/**
 * Puts a world's clients into a VM until the scope closes. What a client would have said to a request that `misbehave`
 * answers is used up all the same.
 */
export const install = (
  vm: { readonly io: IoDispatcher["Service"]; readonly machine: Pick<Machine["Service"], "onReset"> },
  world: World,
  misbehave: Misbehave = () => undefined
): Effect.Effect<Log, IoDispatcherError, Scope.Scope> =>
  Effect.gen(function*() {
    const log: Array<Asked> = []
    let valueOf = makeValues(world.seed)
    yield* vm.machine.onReset(Effect.sync(() => {
      valueOf = makeValues(world.seed)
    }))
    const handler = (client: string, answers: Answers) => (request: IoRequest) => {
      log.push({ client, request })
      const value = valueOf(client, request)
      return misbehave(request) ?? act(answers, value)
    }
    for (const { answers, name, ranges } of world.clients) {
      yield* vm.io.register({ name, ranges, handle: handler(name, answers), ...deadlineOf(answers) })
    }
    if (world.default !== undefined) {
      const name = DEFAULT_CLIENT
      yield* vm.io.registerDefault({ name, handle: handler(name, world.default), ...deadlineOf(world.default) })
    }
    return log
  })

/** Addresses of one space: where a case happens. `start` is its first one, and it has {@link WINDOW_LENGTH} of them. */
type Window = number

export const WINDOW_LENGTH = 24

/** Where the clients of a case, and the accesses of its programs, lie. */
export interface Places {
  readonly ports: Window
  readonly mmio: Window
}

// Short windows, so that ranges are neighbours and accesses meet their edges: in the middle of a space, around the PCI
// address register, across a page's end, at the end of what a 32-bit guest reaches.
const PORT_WINDOWS: ReadonlyArray<Window> = [0x300, 0xcf2, 0x1_0000 - WINDOW_LENGTH]
const MMIO_WINDOWS: ReadonlyArray<Window> = [0xe000_0000, 0xe000_1000 - WINDOW_LENGTH / 2, 2 ** 32 - WINDOW_LENGTH]

/** The PCI functions that clients own, or nearly own. */
export const FUNCTIONS = [
  { bus: 0, device: 0, function: 0 },
  { bus: 0, device: 0, function: 1 },
  { bus: 0, device: 1, function: 0 },
  { bus: 255, device: 31, function: 7 }
] as const

/** Places that every hypervisor with this profile has. */
const places = (profile: HypervisorProfile): Generator.Generator<Places> => {
  const last = 2 ** profile.addressBits - WINDOW_LENGTH
  const inReach = MMIO_WINDOWS.filter((window) => window <= last)
  return Generator.all({
    ports: Generator.elementOf(PORT_WINDOWS),
    mmio: Generator.elementOf(inReach.length > 0 ? inReach : [last])
  })
}

/** All memory that worlds on this hypervisor are about. */
export const wholeMemory = ({ addressBits }: HypervisorProfile): IoRange.IoRange => {
  const end = Math.min(2 ** addressBits, 2 ** 32)
  return IoRange.mmio(Math.min(MMIO_WINDOWS[0]!, end - WINDOW_LENGTH), end - 1)
}

const NAMES = ["alpha", "beta", "gamma"] as const

/** Ways to answer that come to an end. */
const answering: Generator.Generator<Answers> = Generator.oneOf<Answers>(
  Generator.constant(atOnce),
  Generator.constant(atOnce),
  Generator.map(Generator.integer(0, 3), (turns) => ({ _tag: "AfterTurns", turns })),
  Generator.map(Generator.integer(1, 2000), (nanos) => ({ _tag: "AfterNanos", nanos }))
)

/** The same, and ways that go wrong but end. */
export const failing: Generator.Generator<Answers> = Generator.oneOf<Answers>(
  answering,
  Generator.elementOf<Answers>([
    { _tag: "Nothing" },
    { _tag: "Fails" },
    { _tag: "Dies" },
    { _tag: "Throws" },
    { _tag: "TooLate", nanos: 1000 }
  ])
)

/** Ways that need no time to pass, for VMs that do not run. */
export const timeless: Generator.Generator<Answers> = Generator.map(
  failing,
  (answers) => answers._tag === "AfterNanos" || answers._tag === "TooLate" ? atOnce : answers
)

interface Plot {
  readonly gap: number
  readonly length: number
  readonly owner: number
}

const plots = Generator.array(
  Generator.all({ gap: Generator.integer(0, 3), length: Generator.integer(1, 6), owner: Generator.integer(0, 2) }),
  { maxLength: 5 }
)

/** Plots one behind the other, as far as the window goes: no two of them share an address. */
const lay = (
  window: Window,
  laid: ReadonlyArray<Plot>,
  range: (start: number, end: number) => IoRange.IoRange
): Array<{ readonly owner: number; readonly range: IoRange.IoRange }> => {
  const last = window + WINDOW_LENGTH - 1
  let next = window
  return laid.flatMap(({ gap, length, owner }) => {
    const start = next + gap
    const end = Math.min(start + length - 1, last)
    next = start + length
    return start > last ? [] : [{ owner, range: range(start, end) }]
  })
}

/** A world, and where it is. */
export interface Placed {
  readonly places: Places
  readonly world: World
}

/**
 * Worlds of up to three clients and perhaps a default one, whose ranges are close to each other: they touch, or leave
 * gaps narrower than an access. No two own one address.
 */
export const placed = (
  profile: HypervisorProfile,
  answers: Generator.Generator<Answers> = answering
): Generator.Generator<Placed> =>
  Generator.map(
    Generator.all({
      at: places(profile),
      seed: Generator.integer(0, 99),
      answers: Generator.all([answers, answers, answers]),
      ports: plots,
      mmio: plots,
      functions: Generator.array(
        Generator.all({ at: Generator.elementOf(FUNCTIONS), owner: Generator.integer(0, 2) }),
        { maxLength: 3 }
      ),
      restOfPci: Generator.elementOf([undefined, 0, 1]),
      default: Generator.oneOf<Answers | undefined>(Generator.constant(undefined), answers)
    }),
    (chosen): Placed => {
      const functions = chosen.functions.map(({ at: { bus, device, function: fn }, owner }) => ({
        owner,
        range: IoRange.pciFunction(bus, device, fn)
      }))
      const owned = [
        ...lay(chosen.at.ports, chosen.ports, IoRange.ports),
        ...lay(chosen.at.mmio, chosen.mmio, IoRange.mmio),
        ...functions.filter(({ range }, index) =>
          !functions.slice(0, index).some((earlier) => IoRange.overlaps(earlier.range, range))
        ),
        ...chosen.restOfPci === undefined ? [] : [{ owner: chosen.restOfPci, range: IoRange.pciAny }]
      ]
      const clients = NAMES.map((name, index): Client => ({
        name,
        ranges: owned.filter(({ owner }) => owner === index).map(({ range }) => range),
        answers: chosen.answers[index]!
      }))
      return {
        places: chosen.at,
        world: {
          seed: chosen.seed,
          clients: clients.filter(({ ranges }) => ranges.length > 0),
          ...chosen.default === undefined ? {} : { default: chosen.default },
          ...profile.dispatchRole === "DefaultClient" ? { configFoldedBelow: true } : {}
        }
      }
    }
  )

/** The worlds of {@link placed}, for a case that does not ask where they are. */
export const generator = (
  profile: HypervisorProfile,
  answers?: Generator.Generator<Answers>
): Generator.Generator<World> => Generator.map(placed(profile, answers), ({ world }) => world)

const formatAnswers = (answers: Answers): string => {
  switch (answers._tag) {
    case "AtOnce":
      return "answers at once"
    case "AfterTurns":
      return `answers after ${answers.turns} turns`
    case "AfterNanos":
      return `answers after ${answers.nanos} ns of guest time`
    case "Nothing":
      return "answers with nothing"
    case "Fails":
      return "fails"
    case "Dies":
      return "dies"
    case "Throws":
      return "throws"
    case "TooLate":
      return `never answers, and has a deadline of ${answers.nanos} ns`
    case "Never":
      return "never answers"
  }
}

/** A world for people, one client a line. */
export const format = (world: World): string =>
  [
    `clients (seed ${world.seed}):`,
    ...world.clients.map(({ answers, name, ranges }) =>
      `  ${name} ${formatAnswers(answers)}: ${ranges.map(IoRange.format).join(", ")}`
    ),
    world.default === undefined ? "  no default client" : `  default client ${formatAnswers(world.default)}`
  ].join("\n")
