/**
 * Upcalls that come late, merged or not at all, and hypervisors that act while the services do: laws 2, 3 and 12.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import { SLOT_STATE_OFFSET, SlotStateCode } from "../../../src/domain/abi/IoRequestSlot.ts"
import { MAX_VCPUS, PAGE_BYTES, SLOT_BYTES } from "../../../src/domain/Limits.ts"
import { sharedPage } from "../../../src/services/AddressSpace.ts"
import { RequestPage } from "../../../src/services/dispatch/RequestPage.ts"
import * as Upcalls from "../../../src/services/Upcalls.ts"
import { Exploration, step, stepWhen } from "../../../src/testing/Explorer.ts"
import { Ledger } from "../Ledger.ts"
import { Vcpus } from "../Vcpus.ts"
import * as WatchedMemory from "../WatchedMemory.ts"
import { actBefore, drive, make } from "../World.ts"
import { A, B, quickA, quickB, scenario, slowA, slowB, slowWorld } from "./Scenario.ts"

const late = scenario(
  "late upcalls",
  "an upcall comes after its request, and stands for all that came meanwhile",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, B], [B + 1, A + 1]], upcalls: "Late" })
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const lost = scenario(
  "upcall lost",
  "any upcall may get lost; pages are looked at every ten milliseconds",
  Effect.gen(function*() {
    const { guest } = yield* slowWorld({ programs: [[A, B], [B + 1]], upcalls: "MayBeLost", rescan: "10 millis" })
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const parallel = scenario(
  "parallel hypervisor",
  "vCPUs send requests and take answers between any two accesses of the services to the page",
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: [[A], [B, A + 1]], upcalls: "Late", isParallel: true })
    yield* guest.client(quickA)
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const runOn = scenario(
  "vCPUs that run on in the notification",
  "a vCPU may take its answer and send its next request in the stack of who notifies it",
  Effect.gen(function*() {
    const { guest } = yield* make({ programs: [[A, B, A + 1], [A + 2, B + 1]], runsOnNotify: true })
    yield* guest.client(quickA)
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

/** The answer of every other request is polled for, and the slot is filled again before the services look back at it. */
const polled = scenario(
  "polling hypervisor",
  "a vCPU takes its answer and sends its next request as soon as COMPLETE is stored",
  Effect.gen(function*() {
    const { guest } = yield* make({
      programs: [[A, A + 1, A + 2, B]],
      upcalls: "Late",
      isParallel: true,
      isPolled: (port) => port % 2 === 0
    })
    yield* guest.client(quickA)
    yield* guest.client(slowB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

const polledTwo = scenario(
  "polling hypervisor, two vCPUs",
  "as before, while another vCPU's request is served",
  Effect.gen(function*() {
    const { guest } = yield* make({
      programs: [[A, A + 1], [B]],
      upcalls: "Late",
      isParallel: true,
      isPolled: (port) => port % 2 === 0
    })
    yield* guest.client(slowA)
    yield* guest.client(quickB)
    yield* guest.start(guest.vm)
    yield* guest.finish
  })
)

/** No VM here: only the line of upcalls, a page, and who looks at it. */
const arming = scenario(
  "arming",
  "vCPUs that run already send requests while a handler of upcalls is armed and looks at the page for the first time",
  Effect.gen(function*() {
    const exploration = yield* Exploration
    const ledger = new Ledger(exploration)
    const upcalls = Upcalls.make()
    const raw = sharedPage(new Int32Array(PAGE_BYTES / 4), 0)
    for (let slot = 0; slot < MAX_VCPUS; slot++) raw.store32(slot * SLOT_BYTES + SLOT_STATE_OFFSET, SlotStateCode.Free)
    const engine = new Vcpus({ vmId: 1, vcpus: 2, onEnd: () => undefined }, {
      clock: yield* Clock.Clock,
      scheduler: yield* Scheduler.Scheduler,
      exploration,
      programs: [[A, A + 1], [B]],
      accesses: ledger.accesses,
      isPolled: () => false,
      pauseTakesTime: false,
      runsOnNotify: false,
      raise: upcalls.raise,
      onAnswer: (access, life, value) => ledger.answered(access, life, value)
    })
    engine.setRequestPage(raw)
    engine.start()
    for (const vcpu of [0, 1]) yield* Effect.forkScoped(drive(exploration, engine, vcpu))

    const page = new RequestPage(
      WatchedMemory.watchPage(raw, (what) => actBefore(exploration, engine, what)),
      2,
      (vcpu) => {
        engine.notify(vcpu)
        return 0
      }
    )
    const lookAt = (vcpu: number): void => {
      if (page.look(vcpu) !== "Request") return
      const request = page.request!
      const access = ledger.takenByHand(request)
      if (access !== undefined) access.given = access.port + 1
      page.answer(vcpu, access?.given)
      ledger.completed(request)
    }
    yield* step("the handler is armed")
    yield* upcalls.service.register((hint) => {
      if (hint !== undefined) lookAt(hint.vcpu)
      else for (const vcpu of [0, 1]) lookAt(vcpu)
    })
    yield* stepWhen("all is done", () => engine.isDone)
    ledger.settled([])
  })
)

export const upcallScenarios = [late, lost, runOn, parallel, polled, polledTwo, arming]
