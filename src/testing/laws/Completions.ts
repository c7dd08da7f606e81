/**
 * Law 15, with the law as the hypervisor, for it must have both kinds of completion on one layer. It takes a notified
 * answer when it is told, and a polled one as soon as the slot shows COMPLETE, as a hypervisor on another CPU does:
 * then the next request, with a kind of completion of its own, is in the slot before the service does its next step.
 */
import * as Effect from "effect/Effect"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import { SLOT_BYTES } from "../../domain/Limits.ts"
import type { ServicePage } from "../../services/ServiceMemory.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import * as Trace from "../Trace.ts"
import { noPageByHand } from "./aboveModule.ts"
import { meetsConfigPorts } from "./configPorts.ts"
import * as NearbyRequests from "./NearbyRequests.ts"
import type { PageByHand } from "./PageByHand.ts"
import { slotBytes } from "./PageByHand.ts"
import * as Reference from "./Reference.ts"
import * as VmByHand from "./VmByHand.ts"
import * as World from "./World.ts"

interface Asked {
  readonly request: IoRequest.IoRequest
  /** How the hypervisor hears of its completion, where both kinds are mixed. */
  readonly isPolled: boolean
}

interface Case {
  readonly world: World.World
  readonly vcpus: number
  readonly asked: ReadonlyArray<Asked>
}

const { Complete, Free, Pending } = Slot.SlotStateCode
const MAX_TURNS = 1000

/** One vCPU's side of the page: asks, waits as its request says, takes the answer, asks again. */
class Guest {
  readonly answers: Array<bigint> = []
  readonly slot: number
  private readonly page: PageByHand
  private readonly waiting: Array<Asked>
  private current: Asked | undefined

  constructor(slot: number, page: PageByHand, asked: ReadonlyArray<Asked>) {
    this.slot = slot
    this.page = page
    this.waiting = [...asked]
  }

  get isDone(): boolean {
    return this.current === undefined && this.waiting.length === 0
  }

  get isAsking(): boolean {
    return this.page.state(this.slot) === Pending
  }

  ask(): void {
    this.current = this.waiting.shift()
    if (this.current === undefined) this.page.setState(this.slot, Free)
    else this.page.fill(this.slot, slotBytes(this.current.request, Pending, this.current.isPolled))
  }

  onComplete(): void {
    if (this.current?.isPolled === true) this.take()
  }

  onNotify(): string | undefined {
    if (this.current === undefined || this.current.isPolled || this.page.state(this.slot) !== Complete) {
      return `vCPU ${this.slot} was notified, and no completion of it waits for that`
    }
    this.take()
    return undefined
  }

  private take(): void {
    const { request } = this.current!
    const low = BigInt(this.page.load(this.slot, Slot.REQUEST_VALUE_OFFSET) >>> 0)
    const high = BigInt(this.page.load(this.slot, Slot.REQUEST_VALUE_OFFSET + 4) >>> 0)
    if (!("value" in request)) this.answers.push(BigInt.asUintN(8 * request.size, high << 32n | low))
    this.ask()
  }
}

/** A VM by hand whose vCPUs see each completion on the page at once. */
const makeBench = (vcpus: number) =>
  Effect.gen(function*() {
    const bench = { guests: [] as ReadonlyArray<Guest> }
    const between = (page: ServicePage): ServicePage => ({
      ...page,
      store32: (offset, value) => {
        page.store32(offset, value)
        const isCompletion = offset % SLOT_BYTES === Slot.SLOT_STATE_OFFSET && value === Complete
        if (isCompletion) bench.guests[Math.floor(offset / SLOT_BYTES)]?.onComplete()
      }
    })
    return Object.assign(bench, yield* VmByHand.make({ vcpus, between }))
  })

/** Serves the requests and says what is wrong with that, if something is. */
const problemOf = (bench: Effect.Success<ReturnType<typeof makeBench>>, { asked, vcpus, world }: Case) =>
  Effect.gen(function*() {
    const { notified, page, raise, vm } = bench
    yield* World.install(vm, world)
    const recording = yield* Trace.record(vm)
    const guests = Array.from(
      { length: vcpus },
      (_, vcpu) => new Guest(vcpu, page, asked.filter(({ request }) => request.vcpu === vcpu))
    )
    bench.guests = guests
    let heard = notified.length
    for (const guest of guests) guest.ask()
    for (let turn = 0; turn < MAX_TURNS && guests.some(({ isDone }) => !isDone); turn++) {
      for (const guest of guests) if (guest.isAsking) raise(guest.slot)
      for (; heard < notified.length; heard++) {
        const problem = guests[notified[heard]!]!.onNotify()
        if (problem !== undefined) return problem
      }
      yield* Effect.yieldNow
    }
    const stuck = guests.find(({ isDone }) => !isDone)
    if (stuck !== undefined) return `vCPU ${stuck.slot} never heard of the completion of its request`
    return difference(asked, world, (yield* recording.trace).entries, guests)
  }).pipe(Effect.scoped)

const difference = (
  asked: ReadonlyArray<Asked>,
  world: World.World,
  entries: ReadonlyArray<Trace.TraceEntry>,
  guests: ReadonlyArray<Guest>
): string | undefined => {
  const dispatcher = new Reference.Dispatcher(world)
  const expected = asked.map(({ request }) => dispatcher.serve(request))
  const served = Reference.servedIn(entries, guests.length)
  for (const { answers, slot } of guests) {
    const own = expected.filter(({ request }) => request.vcpu === slot)
    const problem = Reference.firstDifference(own, served[slot]!)
    if (problem !== undefined) return `vCPU ${slot}: ${problem}`
    const must = own.flatMap(({ answer }) => answer === undefined ? [] : [BigInt(answer)])
    if (must.join() !== answers.join()) {
      return `vCPU ${slot} must read ${must.join()} from its slot, and read ${answers.join()}`
    }
  }
  return undefined
}

const kinds = [
  ["all notified", () => false],
  ["all polled", () => true],
  ["of both kinds", ({ isPolled }: Asked) => isPolled]
] as const

export const completions = Law.make<Case>({
  number: 15,
  title: "polled and notified completion give equal results, and a vCPU is notified exactly when it waits for that",
  skip: noPageByHand,
  cases: ({ profile }) => {
    const vcpus = Math.min(2, profile.maxVcpus)
    return Generator.map(
      Generator.all({
        placed: World.placed(profile, World.timeless),
        asked: Generator.array(
          Generator.all({ draft: NearbyRequests.drafts(vcpus), isPolled: Generator.boolean }),
          { maxLength: 12 }
        )
      }),
      ({ asked, placed: { places, world } }): Case => ({
        world,
        vcpus,
        asked: asked
          .map(({ draft, isPolled }) => ({ request: NearbyRequests.requestAt(places, draft), isPolled }))
          // The address register is the VM's, so what a vCPU reads there depends on how they take turns.
          .filter(({ request }) => !("port" in request && meetsConfigPorts(request)))
      })
    )
  },
  show: ({ asked, world }) =>
    [
      World.format(world),
      "requests:",
      ...asked.map(({ isPolled, request }) => `  ${IoRequest.format(request)}, ${isPolled ? "polled" : "notified"}`)
    ].join("\n"),
  holds: (value) =>
    Effect.gen(function*() {
      const bench = yield* makeBench(value.vcpus)
      for (const [name, isPolled] of kinds) {
        const asked = value.asked.map((each) => ({ ...each, isPolled: isPolled(each) }))
        const problem = yield* problemOf(bench, { ...value, asked })
        yield* Law.holdsUnless(problem === undefined ? undefined : `with completions ${name}: ${problem}`)
      }
    })
})
