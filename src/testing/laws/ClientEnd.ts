/**
 * Law 9: one client of a world leaves in the middle of a guest's run. Its handlers dawdle, and go on in finalizers; the
 * oracle is the reference with the client until it left, and without it from then on.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { AroundHandlers } from "../../services/IoDispatcher.ts"
import { waitTurns } from "../adversaries/hostTurns.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import * as Moments from "./Moments.ts"
import * as ProgramCase from "./ProgramCase.ts"
import * as Reference from "./Reference.ts"
import * as World from "./World.ts"

/** How a handler of the client that leaves takes its time, and how it takes leave when it is interrupted. */
interface Manner {
  readonly dawdles: "NotAtAll" | "Turns" | "GuestTime" | "ForEver"
  readonly finalizes: "NotAtAll" | "Turns" | "GuestTime"
}

/** `leaver`: which of the world's clients leaves; `heir`: a client gets its ranges at once. */
interface Case {
  readonly guest: ProgramCase.ProgramCase
  readonly leaver: number
  readonly manner: Manner
  readonly leaves: Moments.Moment
  readonly heir: boolean
}

const HEIR = "heir"
const STEPS = 4
const TURNS_AFTERWARDS = 4

/** What of the client that leaves was seen to run. */
class Watch {
  hasLeft = false
  problem: string | undefined

  readonly runs = (what: string): void => {
    if (this.hasLeft) this.problem ??= `a ${what} of the client ran after its scope was closed`
  }
}

const steps = (watch: Watch, what: string, kind: "Turns" | "GuestTime"): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let i = 0; i < STEPS; i++) {
      watch.runs(what)
      yield* kind === "Turns" ? Effect.yieldNow : Effect.sleep("500 nanos")
    }
    watch.runs(what)
  })

const dawdle = ({ dawdles, finalizes }: Manner, watch: Watch, answer: Effect.Effect<IoValue, unknown>) => {
  if (dawdles === "NotAtAll" && finalizes === "NotAtAll") return answer
  const body = dawdles === "NotAtAll"
    ? answer
    : Effect.andThen(dawdles === "ForEver" ? Effect.never : steps(watch, "handler", dawdles), answer)
  return finalizes === "NotAtAll" ? body : Effect.ensuring(body, steps(watch, "finalizer", finalizes))
}

/** A world, and how many requests each vCPU had made when it came to be so. */
interface Phase {
  readonly world: World.World
  readonly from: ReadonlyArray<number>
}

/** The reference in worlds that follow each other; `abandoned` requests were held by a client when it left. */
class InPhases {
  private readonly dispatcher: Reference.Dispatcher
  private readonly phases: ReadonlyArray<Phase>
  private readonly abandoned: ReadonlySet<string>
  private readonly counts = new Map<number, number>()

  constructor(phases: ReadonlyArray<Phase>, abandoned: ReadonlySet<string>) {
    this.phases = phases
    this.abandoned = abandoned
    this.dispatcher = new Reference.Dispatcher(phases[0]!.world)
  }

  serve(asked: IoRequest): Reference.Served {
    const count = this.counts.get(asked.vcpu) ?? 0
    this.dispatcher.world = this.phases.findLast(({ from }) => from[asked.vcpu]! <= count)!.world
    const served = this.dispatcher.serve(asked)
    if (served.isBelow === true) return served
    this.counts.set(asked.vcpu, count + 1)
    if (!this.abandoned.has(requestKey(asked.vcpu, count)) || served.answer === undefined) return served
    const answer = BigInt.asUintN(8 * asked.size, -1n)
    return { ...served, answer: served.request._tag === "MmioRead" ? answer : Number(answer) }
  }
}

const requestKey = (vcpu: number, count: number) => `${vcpu}.${count}`

const holds = (value: Case, subject: Law.Subject) =>
  Effect.gen(function*() {
    const { guest, heir, leaves, manner } = value
    const { programs, world } = guest
    const leaver = world.clients[value.leaver % world.clients.length]
    if (leaver === undefined) return
    const others: World.World = { ...world, clients: world.clients.filter((client) => client !== leaver) }
    const successor: World.Client = { ...leaver, name: HEIR, answers: World.atOnce }

    const watch = new Watch()
    const asked = programs.map(() => 0)
    const holders: Array<string | undefined> = programs.map(() => undefined)
    const phases: Array<Phase> = [{ world, from: [...asked] }]
    const abandoned = new Set<string>()
    const outer = yield* Effect.scope
    const scope = yield* Scope.fork(outer)

    // In a scope of its own: a handler that ends with a sleep may need the VM's end, for no time passes in a guest that
    // has halted.
    const [seen, finished] = yield* Effect.scoped(Effect.gen(function*() {
      const { observe, vm } = yield* ProgramCase.prepare({ programs, world: others })
      const join = (client: World.Client) => vm.attach(World.install(vm, { seed: world.seed, clients: [client] }))
      yield* vm.attach(Scope.provide(World.install(vm, { seed: world.seed, clients: [leaver] }), scope)).pipe(
        Effect.provideService(AroundHandlers, (_client, handle) => (request) => {
          watch.runs("handler")
          return dawdle(manner, watch, handle(request))
        })
      )
      yield* vm.io.observe({
        onRequest: (client, { vcpu }) => {
          asked[vcpu]!++
          holders[vcpu] = client
        },
        onComplete: (_, { vcpu }) => {
          holders[vcpu] = undefined
        }
      })

      const leave = Effect.gen(function*() {
        if (phases.length > 1) return
        for (const [vcpu, holder] of holders.entries()) {
          if (holder === leaver.name) abandoned.add(requestKey(vcpu, asked[vcpu]! - 1))
        }
        phases.push({ world: others, from: [...asked] })
        yield* Scope.close(scope, Exit.void)
        watch.hasLeft = true
        if (!heir) return
        phases.push({ world: { ...world, clients: [...others.clients, successor] }, from: [...asked] })
        yield* join(successor)
      })

      const acts = yield* Moments.at(vm, [leaves], () => leave).pipe(Scope.provide(outer))
      const running = yield* vm.start
      const ended = yield* Effect.forkScoped(running.ended, { startImmediately: true })
      const isOver = () => ended.pollUnsafe() !== undefined
      // A guest that waits for the leaver for ever does not come to the moment.
      yield* Moments.untilStill(subject.history, isOver)
      const rest = yield* Effect.forkIn(Effect.andThen(leave, acts.finished), outer, { startImmediately: true })
      const end = yield* Fiber.join(ended)
      return [yield* observe(end), Fiber.join(rest)] as const
    }))
    yield* finished
    yield* waitTurns(TURNS_AFTERWARDS)

    if (watch.problem !== undefined) return yield* Law.broken(watch.problem)
    const problem = ProgramCase.problemOfGuest(programs, seen, new InPhases(phases, abandoned))
    if (problem !== undefined) return yield* Law.broken(problem)
  })

export const clientEnd = Law.make<Case>({
  number: 9,
  title: "a client that is destroyed at any point answers what it held, and leaves no fiber, timer or range",
  cases: (subject) =>
    Generator.all({
      guest: ProgramCase.cases(subject),
      leaver: Generator.integer(0, 2),
      manner: Generator.all({
        dawdles: Generator.elementOf(["NotAtAll", "Turns", "GuestTime", "ForEver"] as const),
        finalizes: Generator.elementOf(["NotAtAll", "Turns", "GuestTime"] as const)
      }),
      leaves: Moments.generator,
      heir: Generator.boolean
    }),
  show: ({ guest, heir, leaver, leaves, manner }) => {
    const { clients } = guest.world
    const name = clients[leaver % clients.length]?.name
    return [
      ProgramCase.show(guest),
      name === undefined
        ? "no client to leave"
        : `${name} (dawdles: ${manner.dawdles}, finalizes: ${manner.finalizes}) leaves ${Moments.format(leaves)}` +
          (heir ? ", and another gets its ranges" : "")
    ].join("\n")
  },
  holds
})
