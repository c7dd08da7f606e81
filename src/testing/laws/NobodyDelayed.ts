/**
 * Law 5. A bystander runs beside trouble: a vCPU of its own VM, or another VM, whose every request goes wrong; or a VM
 * whose page is garbage, in the same scan. The bystander's requests are answered as the reference says all the same,
 * and it comes to its end while the trouble lasts.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as IoRange from "../../domain/IoRange.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import type { IoDispatcher } from "../../services/IoDispatcher.ts"
import * as Generator from "../Generator.ts"
import type { Operation } from "../GuestProgram.ts"
import * as Law from "../Law.ts"
import { isAboveModule } from "./aboveModule.ts"
import * as GarbagePages from "./GarbagePages.ts"
import * as NearbyRequests from "./NearbyRequests.ts"
import * as ProgramCase from "./ProgramCase.ts"
import * as World from "./World.ts"

/** How the trouble's requests go. A `Stuck` one is answered only once the bystander is done. */
const WAYS = ["Stuck", "Fails", "Dies", "Throws", "Spins"] as const
type Way = (typeof WAYS)[number]

/** The trouble does what the bystander's vCPU 0 does, and so meets the same clients. */
interface Beside {
  readonly _tag: "Vcpu" | "Vm"
  readonly way: Way
  readonly bystander: ProgramCase.ProgramCase
}

type Case = Beside | {
  readonly _tag: "Page"
  readonly vcpus: number
  readonly slots: ReadonlyArray<GarbagePages.Garbage>
  readonly world: World.World
  readonly requests: ReadonlyArray<IoRequest.IoRequest>
}

const SPINS = 200

/** Requests of the trouble's vCPU in place of what its clients do, until `over`. */
const misbehaviour = (way: Way, over: Deferred.Deferred<void>): Effect.Effect<IoRequest.IoValue, string> => {
  switch (way) {
    case "Stuck":
      return Deferred.await(over)
    case "Fails":
      return Effect.fail("this client is in trouble")
    case "Dies":
      return Effect.die("this client is in trouble")
    case "Throws":
      throw new Error("this client is in trouble")
    case "Spins":
      return Effect.gen(function*() {
        for (let turn = 0; turn < SPINS; turn++) yield* Effect.yieldNow
      })
  }
}

// The bystanders' last access: a port of its own, for a VM with a stuck vCPU does not halt.
const DONE_PORT = 0x500
const DONE = "done"

const sayingDone = ({ programs, world }: ProgramCase.ProgramCase): ProgramCase.ProgramCase => ({
  world: {
    ...world,
    clients: [...world.clients, { name: DONE, ranges: [IoRange.ports(DONE_PORT, DONE_PORT)], answers: World.atOnce }]
  },
  programs: programs.map((operations) => [
    ...operations,
    { _tag: "PortOut", port: DONE_PORT, size: 1, value: 0 } as Operation
  ])
})

/** What waits until each vCPU of the bystander has said that it is done. */
const allDone = (io: IoDispatcher["Service"], vcpus: number) =>
  Effect.gen(function*() {
    const done = yield* Deferred.make<void>()
    const waiting = new Set(Array.from({ length: vcpus }, (_, vcpu) => vcpu))
    yield* io.observe({
      onComplete: (client, { vcpu }) => {
        if (client !== DONE) return
        waiting.delete(vcpu)
        if (waiting.size === 0) Deferred.doneUnsafe(done, Effect.void)
      }
    })
    return Deferred.await(done)
  })

const problemBeside = ({ _tag, bystander, way }: Beside) =>
  Effect.gen(function*() {
    const over = yield* Deferred.make<void>()
    const { programs, world } = sayingDone(bystander)
    const trouble = ProgramCase.withoutConfig(bystander.programs[0]!)
    const troubledVcpu = _tag === "Vcpu" ? programs.length : undefined
    if (_tag === "Vm") {
      yield* ProgramCase.start({ world: bystander.world, programs: [trouble] }, () => misbehaviour(way, over))
    }
    const { observe, vm } = yield* ProgramCase.prepare(
      { world, programs: troubledVcpu === undefined ? programs : [...programs, trouble] },
      ({ vcpu }) => vcpu === troubledVcpu ? misbehaviour(way, over) : undefined
    )
    const done = yield* allDone(vm.io, programs.length)
    const running = yield* vm.start
    yield* done
    yield* Deferred.succeed(over, undefined)
    return ProgramCase.problemOf({ world, programs }, yield* observe(yield* running.ended))
  }).pipe(Effect.scoped)

const showBeside = ({ _tag, bystander, way }: Beside): string =>
  [
    ProgramCase.show(bystander),
    `${_tag === "Vcpu" ? "one vCPU more" : "another VM"} does what vCPU 0 does; what it asks: ${way}`
  ].join("\n")

export const nobodyDelayed = Law.make<Case>({
  number: 5,
  title: "a slot, client or VM in trouble delays no other",
  cases: (subject) => {
    const { profile } = subject
    const hasSpareVcpu = profile.startsAllVcpus && profile.maxVcpus > 1
    const vcpus = Math.min(3, profile.maxVcpus)
    const beside = Generator.map(
      Generator.all({
        _tag: Generator.elementOf<Beside["_tag"]>(hasSpareVcpu ? ["Vcpu", "Vm"] : ["Vm"]),
        way: Generator.elementOf(WAYS),
        bystander: ProgramCase.cases(subject, { maxVcpus: hasSpareVcpu ? 2 : 1, maxLength: 6 })
      }),
      (chosen): Case => chosen
    )
    const page = Generator.map(
      Generator.all({
        slots: Generator.array(GarbagePages.garbage(vcpus), { maxLength: 3 }),
        placed: World.placed(profile, World.timeless),
        drafts: Generator.array(NearbyRequests.drafts(1), { maxLength: 6 })
      }),
      ({ drafts, placed: { places, world }, slots }): Case => ({
        _tag: "Page",
        vcpus,
        slots,
        world,
        requests: drafts.map((draft) => NearbyRequests.requestAt(places, draft))
      })
    )
    return isAboveModule(subject) ? beside : Generator.oneOf(beside, beside, page)
  },
  show: (value) =>
    value._tag !== "Page" ? showBeside(value) : [
      World.format(value.world),
      "requests of the good VM:",
      ...value.requests.map((request) => `  ${IoRequest.format(request)}`),
      "slots of the bad VM:",
      ...value.slots.map(({ slot, state, word }) => `  slot ${slot}: state ${state}, every other word ${word}`)
    ].join("\n"),
  holds: (value) =>
    Effect.gen(function*() {
      yield* Law.holdsUnless(
        value._tag === "Page"
          ? yield* GarbagePages.problemBeside(value, value.world, value.requests)
          : yield* problemBeside(value)
      )
    })
})
