/**
 * Law 2: the page changes as soon as a request was read, in every word that was read, and nothing of that may be seen.
 * In two kinds of cases: slots by hand, where handlers, answers and notifications are compared with the words at the
 * moment of the read; and guests, which must get what the reference says.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../../domain/Limits.ts"
import type { Hypervisor } from "../../services/Hypervisor.ts"
import { ServiceMemory, type ServicePage } from "../../services/ServiceMemory.ts"
import { VirtualMachine } from "../../services/VirtualMachine.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import { guestsAlone, isAboveModule } from "./aboveModule.ts"
import * as Moments from "./Moments.ts"
import { machinesOver, withRequestPages } from "./over.ts"
import { difference, PageByHand, slotBytes } from "./PageByHand.ts"
import * as ProgramCase from "./ProgramCase.ts"
import { anyAnswer, anyRequest, ofVcpu } from "./requests.ts"
import { SlotModel } from "./SlotModel.ts"
import * as VmByHand from "./VmByHand.ts"
import * as World from "./World.ts"

const { Pending } = Slot.SlotStateCode

/** Words that a slot's request is read from, as offsets in the slot. */
const REQUEST_WORDS = [
  Slot.SLOT_TYPE_OFFSET,
  Slot.SLOT_COMPLETION_POLLING_OFFSET,
  ...Array.from({ length: 11 }, (_, word) => Slot.SLOT_REQUEST_OFFSET + 4 * word)
]

// Linux's module reads this word again when the request is completed (`ioreq_complete_request`).
const WORDS_READ_ONCE_ABOVE_MODULE = REQUEST_WORDS.filter((offset) => offset !== Slot.SLOT_COMPLETION_POLLING_OFFSET)

/** What the words become, in turn: a list that is begun again at its end. */
type Lies = ReadonlyArray<number>

/** The guest asks, the page lies after the read, and again before the client answers. */
interface Round {
  readonly slot: number
  readonly request: IoRequest.IoRequest
  readonly isPolled: boolean
  readonly value: IoRequest.IoValue
}

type Case =
  | { readonly _tag: "ByHand"; readonly vcpus: number; readonly lies: Lies; readonly rounds: ReadonlyArray<Round> }
  | { readonly _tag: "Guest"; readonly guest: ProgramCase.ProgramCase; readonly lies: Lies }

class Liar {
  private readonly lies: Lies
  private readonly words: ReadonlyArray<number>
  private told = 0

  constructor(lies: Lies, words: ReadonlyArray<number> = REQUEST_WORDS) {
    this.lies = lies
    this.words = words
  }

  /** Changes every word of a slot's request. */
  tell(slot: number, store: (slot: number, offset: number, value: number) => void): void {
    for (const offset of this.words) store(slot, offset, this.lies[this.told++ % this.lies.length]!)
  }
}

/** The page with `afterRead` called once a request was read, and `onSecondLook` when a word of it is read by itself. */
const watched = (
  page: ServicePage,
  afterRead: (slot: number) => void,
  onSecondLook: (slot: number, word: number) => void
): ServicePage => ({
  store32: (offset, value) => page.store32(offset, value),
  storeRequest: (offset, words) => page.storeRequest(offset, words),
  load32: (offset) => {
    const word = offset % SLOT_BYTES
    if (word !== Slot.SLOT_STATE_OFFSET) onSecondLook(Math.floor(offset / SLOT_BYTES), word)
    return page.load32(offset)
  },
  fetchRequest: (offset, words) => {
    page.fetchRequest(offset, words)
    afterRead(Math.floor(offset / SLOT_BYTES))
  }
})

const handHolds = (value: Extract<Case, { readonly _tag: "ByHand" }>) =>
  Effect.gen(function*() {
    const liar = new Liar(value.lies)
    const looks: Array<string> = []
    const reads = Array.from({ length: MAX_VCPUS }, () => 0)
    let afterRead = (_slot: number): void => undefined
    const { notified, page, raise, vm } = yield* VmByHand.make({
      vcpus: value.vcpus,
      between: (below) =>
        watched(below, (slot) => {
          reads[slot]!++
          afterRead(slot)
        }, (slot, word) => looks.push(`word ${word} of slot ${slot} was read by itself`))
    })
    const model = new SlotModel(value.vcpus, page.bytes())
    afterRead = (slot) =>
      liar.tell(slot, (at, offset, lie) => {
        page.store(at, offset, lie)
        model.store(at, offset, lie)
      })
    const calls = yield* VmByHand.keeper(vm)

    for (const [index, { isPolled, request: asked, slot, value: answer }] of value.rounds.entries()) {
      const request = ofVcpu(asked, slot)
      model.submit(slot, request, isPolled)
      page.fill(slot, slotBytes(request, Pending, isPolled))
      raise(slot)
      afterRead(slot)
      model.finish(slot, answer)
      const call = calls[index]
      call?.reply(answer)
      const seen = call === undefined ? "nothing" : IoRequest.format(call.request)
      const problem = looks[0] ??
        (seen === IoRequest.format(request) ? undefined : `the handler saw "${seen}"`) ??
        (reads[slot] === value.rounds.slice(0, index + 1).filter((each) => each.slot === slot).length
          ? undefined
          : `slot ${slot} was read ${reads[slot]} times`) ??
        difference(page.bytes(), model.page) ??
        (notified.join() === model.notified.join() ? undefined : `vCPUs [${notified.join()}] were notified`)
      if (problem !== undefined) {
        return yield* Law.broken(`round ${index + 1} (${IoRequest.format(request)}): ${problem}`)
      }
    }
  })

const guestHolds = (value: Extract<Case, { readonly _tag: "Guest" }>, subject: Law.Subject) =>
  Effect.gen(function*() {
    const isAbove = isAboveModule(subject)
    const liar = new Liar(value.lies, isAbove ? WORDS_READ_ONCE_ABOVE_MODULE : REQUEST_WORDS)
    const looks: Array<string> = []
    const hypervisor = yield* Effect.context<Hypervisor>()
    const memory = Context.get(hypervisor, ServiceMemory)
    const machines = yield* machinesOver(Context.add(
      hypervisor,
      ServiceMemory,
      withRequestPages(memory, (page, address) => {
        const byHand = new PageByHand(memory, address)
        return watched(
          page,
          (slot) => liar.tell(slot, (at, offset, lie) => byHand.store(at, offset, lie)),
          (slot, word) => {
            // The module's own word, no part of the request.
            if (isAbove && word === Slot.SLOT_KERNEL_HANDLED_OFFSET) return
            looks.push(`word ${word} of slot ${slot} was read by itself`)
          }
        )
      })
    ))
    const { observe, vm } = yield* Effect.provideService(ProgramCase.prepare(value.guest), VirtualMachine, machines)
    const running = yield* vm.start
    const ended = yield* Effect.forkScoped(running.ended, { startImmediately: true })
    const isStuck = yield* Moments.hasStopped(subject, vm, () => ended.pollUnsafe() !== undefined)
    if (isStuck) return yield* Law.broken("a vCPU waits though its request was answered")
    const problem = looks[0] ?? problemOfReads(subject) ??
      ProgramCase.problemOf(value.guest, yield* observe(yield* running.ended))
    if (problem !== undefined) return yield* Law.broken(problem)
  })

/** Each request that the Service VM took was read once. */
const problemOfReads = ({ history }: Law.Subject): string | undefined => {
  const events = history.events()
  const reads = new Map<string, number>()
  // The first reads of a long case were not kept.
  if (history.count() > events.length) return undefined
  for (const event of events) {
    const slot = `${event.page}.${event.slot}`
    if (event._tag === "Read") reads.set(slot, (reads.get(slot) ?? 0) + 1)
    if (event._tag !== "Moved" || event.by !== "Service" || event.from !== Pending) continue
    if (reads.get(slot) !== 1) return `a request of slot ${event.slot} was read ${reads.get(slot) ?? 0} times`
    reads.delete(slot)
  }
  return undefined
}

const lies = Generator.array(Generator.integer(-0x8000_0000, 0x7fff_ffff), { minLength: 1, maxLength: 8 })

export const singleFetch = Law.make<Case>({
  number: 2,
  title: "a request is read once, and a page that changes after that changes nothing",
  cases: (subject) =>
    guestsAlone<Case>(
      subject,
      Generator.flatMap(Generator.integer(1, Math.min(3, subject.profile.maxVcpus)), (vcpus) =>
        Generator.map(
          Generator.all({
            lies,
            rounds: Generator.array(
              Generator.all({
                slot: Generator.integer(0, vcpus - 1),
                request: anyRequest,
                isPolled: Generator.boolean,
                value: anyAnswer
              }),
              { maxLength: 20 }
            )
          }),
          (chosen): Case => ({ _tag: "ByHand", vcpus, ...chosen })
        )),
      Generator.map(
        Generator.all({ guest: ProgramCase.cases(subject, { answers: World.failing }), lies }),
        (chosen): Case => ({ _tag: "Guest", ...chosen })
      )
    ),
  show: (value) =>
    [
      ...value._tag === "Guest" ? [ProgramCase.show(value.guest)] : [
        `${value.vcpus} vCPU(s)`,
        ...value.rounds.map(({ isPolled, request, slot, value: answer }, index) =>
          `${index + 1}. ${IoRequest.format(ofVcpu(request, slot))}${isPolled ? ", polled" : ""}: answer ${
            String(answer)
          }`
        )
      ],
      `after each read the words become, in turn: ${value.lies.join(", ")}`
    ].join("\n"),
  holds: (value, subject) => value._tag === "Guest" ? guestHolds(value, subject) : handHolds(value)
})
