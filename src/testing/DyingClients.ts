/**
 * I/O clients that fail, die, never answer, or are interrupted in the middle of an answer: a layer for tests of what
 * becomes of the guest, of the other clients, and of the programs above them. It needs no hypervisor below, and reaches
 * the handlers of every client that is registered with it in its context.
 *
 * Which requests a client dies by is a plan, or is drawn from a seed. All deaths but `NeverAnswers` end: their request
 * is completed with all-ones, and the client serves on. After `NeverAnswers` the vCPU waits until something ends the
 * request: the client's deadline, the end of its scope, a reset.
 *
 * **Example** (A device that fails its second request)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Result from "effect/Result"
 * import * as MmioScratch from "upcall/layers/devices/MmioScratch"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as DyingClients from "upcall/testing/DyingClients"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 * import * as GuestRun from "upcall/testing/GuestRun"
 *
 * const guest = Result.getOrThrow(GuestProgram.assemble([
 *   { _tag: "Store", address: 0xe0000010, size: 4, value: 0x11223344 },
 *   { _tag: "Load", address: 0xe0000010, size: 4 },
 *   { _tag: "Keep" },
 *   { _tag: "Load", address: 0xe0000010, size: 4 },
 *   { _tag: "Keep" }
 * ]))
 * const program = Effect.gen(function*() {
 *   const run = yield* GuestRun.run(guest, MmioScratch.make())
 *   const clients = yield* DyingClients.DyingClients
 *   console.log(run.results.toString())
 *   // => 255,255,255,255,68,51,34,17
 *   console.log(yield* clients.report)
 *   // => request 2 of scratch, read 4 bytes from guest address 0xe0000010 (vCPU 0): Fails
 * })
 * const machines = VirtualMachine.layer.pipe(
 *   Layer.provideMerge(DyingClients.layer({ plan: [{ nth: 2, death: { _tag: "Fails" } }] })),
 *   Layer.provideMerge(Simulated.layer)
 * )
 * await Effect.runPromise(Effect.provide(program, machines))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import * as IoRequest from "../domain/IoRequest.ts"
import { AroundHandlers, type RequestHandler } from "../services/IoDispatcher.ts"
import { type Adversary, type AdversaryError, checkOptions, enlisted, FaultLog } from "./adversaries/Adversary.ts"
import { Chance, Rate, Seed, weighted, weightsOf } from "./adversaries/Chance.ts"
import * as Generator from "./Generator.ts"

export { Adversaries, AdversaryError, AdversaryErrorReason } from "./adversaries/Adversary.ts"
export type { Adversary } from "./adversaries/Adversary.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Nth = between(1, 1_000_000)

/**
 * - `Fails`, `Dies`: the handler answers with an Effect that fails, or dies.
 * - `Throws`: the handler throws before it answers.
 * - `AnswersRubbish`: the handler answers with what is no Effect.
 * - `Interrupted`: the handler's fiber is interrupted at its step `atStep`, the last that it takes, counted from 1: a
 *   step is one turn of Effect's run loop. A handler that ends before is not interrupted, and answers as ever.
 * - `NeverAnswers`: the handler waits for ever.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Death = Schema.TaggedUnion({
  Fails: {},
  Dies: {},
  Throws: {},
  AnswersRubbish: {},
  Interrupted: { atStep: between(1, 100_000) },
  NeverAnswers: {}
})

/**
 * @category models
 * @since 0.1.0
 */
export type Death = typeof Death.Type

const DEATHS = ["Fails", "Dies", "Throws", "AnswersRubbish", "Interrupted", "NeverAnswers"] as const

/**
 * Which requests a client dies by, and how. `nth` counts from 1: with a `client` the requests of the clients of that
 * name, without one all requests. The first entry that a request meets counts.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Plan = Schema.Array(
  Schema.Struct({ client: Schema.optionalKey(Schema.String), nth: Nth, death: Death })
)

/**
 * @category models
 * @since 0.1.0
 */
export type Plan = typeof Plan.Type

/**
 * Either a `plan`, or deaths that are drawn:
 *
 * - `seed`: the same deaths for the same seed and the same requests; -2^31 to 2^32 - 1.
 * - `rate`: how many requests are died by, 0 to 1; default 0.1.
 * - `deaths`: weights of the deaths to choose from, those that are not named never happening; default all but
 *   `NeverAnswers`, each as often.
 * - `clients`: names of the clients that may die; default all.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Options = Schema.Union([
  Schema.Struct({ plan: Plan }),
  Schema.Struct({
    seed: Seed,
    rate: Schema.optionalKey(Rate),
    deaths: Schema.optionalKey(weightsOf(DEATHS)),
    clients: Schema.optionalKey(Schema.Array(Schema.String))
  })
])

/**
 * @category models
 * @since 0.1.0
 */
export type Options = typeof Options.Type

/**
 * A death: of which client, by its how manieth request (from 1), and how. An `Interrupted` one is told when it happens.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ClientDeath = Schema.TaggedStruct("ClientDeath", {
  client: Schema.String,
  nth: Schema.Natural,
  request: IoRequest.IoRequest,
  death: Death
})

/**
 * @category models
 * @since 0.1.0
 */
export type ClientDeath = typeof ClientDeath.Type

/**
 * A death as a line: `request 2 of scratch, read 4 bytes from guest address 0xe0000010 (vCPU 0): Fails`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ client, death, nth, request }: ClientDeath): string => {
  const how = death._tag === "Interrupted" ? `Interrupted at step ${death.atStep}` : death._tag
  return `request ${nth} of ${client}, ${IoRequest.format(request)}: ${how}`
}

/**
 * Plans of up to three deaths among the first `requests`, all of which end, for property tests; the smallest is a
 * failure of the first request.
 *
 * @category generators
 * @since 0.1.0
 */
export const plans = (requests: number): Generator.Generator<Plan> => {
  const death = Generator.oneOf<Death>(
    Generator.elementOf<Death>([{ _tag: "Fails" }, { _tag: "Dies" }, { _tag: "Throws" }, { _tag: "AnswersRubbish" }]),
    Generator.map(Generator.integer(1, 32), (atStep) => ({ _tag: "Interrupted", atStep }))
  )
  return Generator.array(Generator.all({ nth: Generator.integer(1, requests), death }), { minLength: 1, maxLength: 3 })
}

/**
 * The deaths, to ask which there were.
 *
 * @category services
 * @since 0.1.0
 */
export class DyingClients extends Context.Service<DyingClients, Adversary<ClientDeath>>()(
  "upcall/testing/DyingClients"
) {}

/** Decides about each request: the death that its client dies by it, if any. */
interface Fate {
  readonly of: (client: string, nthOfClient: number, nth: number) => Death | undefined
  readonly restart: () => void
}

const planned = (plan: Plan): Fate => ({
  of: (client, nthOfClient, nth) =>
    plan.find((entry) =>
      entry.client === undefined ? entry.nth === nth : entry.client === client && entry.nth === nthOfClient
    )?.death,
  restart: () => undefined
})

const MAX_DRAWN_STEP = 16

const drawn = (options: Exclude<Options, { readonly plan: Plan }>): Fate => {
  const { clients, deaths, rate = 0.1, seed } = options
  const choices = weighted(deaths ?? { Fails: 1, Dies: 1, Throws: 1, AnswersRubbish: 1, Interrupted: 1 })
  let chance = new Chance(seed, 0)
  return {
    of: (client) => {
      if (!(clients?.includes(client) ?? true) || !chance.happens(rate)) return undefined
      const _tag = chance.pickWeighted(choices)
      return _tag === "Interrupted" ? { _tag, atStep: 1 + chance.below(MAX_DRAWN_STEP) } : { _tag }
    },
    restart: () => {
      chance = new Chance(seed, 0)
    }
  }
}

// The last one looks like the Exit that a dispatcher takes as the answer itself, and is none.
const RUBBISH: ReadonlyArray<unknown> = [undefined, null, 42, "no effect", {}, [], { _tag: "Success", value: 1 }]

/** Interrupts the effect's own fiber at its step `atStep`, and tells when it does. */
const interruptedAt = (
  effect: ReturnType<RequestHandler>,
  atStep: number,
  onInterrupt: () => void
): ReturnType<RequestHandler> =>
  Effect.withFiber((fiber) => {
    const scheduler = fiber.getRef(Scheduler.Scheduler)
    let step = 0
    // The run loop asks before every step whether to yield, which makes the scheduler the one that counts steps.
    const counting: Scheduler.Scheduler = {
      executionMode: scheduler.executionMode,
      makeDispatcher: () => scheduler.makeDispatcher(),
      shouldYield: (each) => {
        if (each.id === fiber.id && ++step === atStep) {
          onInterrupt()
          fiber.interruptUnsafe()
        }
        return scheduler.shouldYield(each)
      }
    }
    return Effect.provideService(effect, Scheduler.Scheduler, counting)
  })

const makeAround = (fate: Fate) => {
  let requests = 0
  let requestsOf = new Map<string, number>()
  let rubbish = 0
  const log = new FaultLog<ClientDeath>({
    name: "DyingClients",
    format,
    onRestart: () => {
      requests = 0
      requestsOf = new Map()
      rubbish = 0
      fate.restart()
    }
  })

  const die = (
    death: Death,
    handle: RequestHandler,
    request: IoRequest.IoRequest,
    tell: () => void
  ): ReturnType<RequestHandler> => {
    if (death._tag === "Interrupted") return interruptedAt(handle(request), death.atStep, tell)
    tell()
    switch (death._tag) {
      case "Fails":
        return Effect.fail("a client that was made to fail")
      case "Dies":
        return Effect.die("a client that was made to die")
      case "Throws":
        throw new Error("a client that was made to throw")
      case "AnswersRubbish":
        return RUBBISH[rubbish++ % RUBBISH.length] as ReturnType<RequestHandler>
      case "NeverAnswers":
        return Effect.never
    }
  }

  const around = (client: string, handle: RequestHandler): RequestHandler => (request) => {
    requests++
    const nth = (requestsOf.get(client) ?? 0) + 1
    requestsOf.set(client, nth)
    const death = log.isActive ? fate.of(client, nth, requests) : undefined
    return death === undefined
      ? handle(request)
      : die(death, handle, request, () => log.add({ _tag: "ClientDeath", client, nth, request, death }))
  }

  return { around, log }
}

/**
 * Clients that die, for every client that is registered with this in its context. Each call is a plan of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<DyingClients, AdversaryError> =>
  Layer.effectContext(Effect.gen(function*() {
    const checked = yield* checkOptions("DyingClients", Options, options)
    const { around, log } = makeAround("plan" in checked ? planned(checked.plan) : drawn(checked))
    // What stands around handlers already stays, inside.
    const inner = yield* AroundHandlers
    return (yield* enlisted(log.adversary)).pipe(
      Context.add(AroundHandlers, (client, handle) => around(client, inner(client, handle))),
      Context.add(DyingClients, log.adversary)
    )
  }))
