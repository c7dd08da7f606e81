/**
 * Law 1, in two kinds of cases: guests that are paused, run on and reset, whose slots' history must show legal steps
 * only; and pages whose states the law sets as it likes, where the Service VM must do nothing but say so.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import { Port, VcpuId } from "../../domain/Address.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import { MAX_VCPUS } from "../../domain/Limits.ts"
import { Resume } from "../../services/Hypervisor.ts"
import type { RunningVm } from "../../services/Vm.ts"
import * as Generator from "../Generator.ts"
import * as Law from "../Law.ts"
import type { SlotEvent, SlotHistory } from "../SlotHistory.ts"
import { guestsAlone, isAboveModule } from "./aboveModule.ts"
import * as Moments from "./Moments.ts"
import { difference, slotBytes } from "./PageByHand.ts"
import * as ProgramCase from "./ProgramCase.ts"
import { anyAnswer, anyRequest, ofVcpu } from "./requests.ts"
import { slotCases } from "./slotCases.ts"
import { SlotModel } from "./SlotModel.ts"
import * as VmByHand from "./VmByHand.ts"
import * as World from "./World.ts"

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

/** A guest that is paused at moments, and then reset and started anew, or resumed where the hypervisor can. */
interface Guest {
  readonly _tag: "Guest"
  readonly guest: ProgramCase.ProgramCase
  readonly commands: ReadonlyArray<{ readonly moment: Moments.Moment; readonly isReset: boolean }>
}

/**
 * - `Submit`: the guest asks, whatever the slot's state is. `Set`: the state becomes a code, proper or not.
 * - `Upcall`, `Reply`: the dispatcher looks; its client answers. `Look`: somebody looks through the typed slots.
 */
type Step =
  | { readonly _tag: "Submit"; readonly slot: number; readonly request: IoRequest.IoRequest }
  | { readonly _tag: "Set"; readonly slot: number; readonly code: number }
  | { readonly _tag: "Upcall"; readonly slot: number | undefined }
  | { readonly _tag: "Reply"; readonly newest: number; readonly value: IoRequest.IoValue }
  | { readonly _tag: "Look"; readonly slot: number }

const FIRST_REQUEST: IoRequest.IoRequest = { _tag: "PortRead", vcpu: VcpuId.make(0), port: Port.make(0x100), size: 1 }

interface ByHand {
  readonly _tag: "ByHand"
  readonly vcpus: number
  readonly steps: ReadonlyArray<Step>
}

type Case = Guest | ByHand

/** What may happen between two looks of the Service VM. A reset frees a slot in whatever state it is. */
const isLegalForHypervisor = (from: number, to: number, wasReset: boolean): boolean =>
  wasReset
    ? to === Free || to === Pending
    : (from === Free && to === Pending) || (from === Complete && (to === Free || to === Pending))

const isLegalForService = (from: number, to: number): boolean =>
  (from === Pending && (to === Processing || to === Complete)) || (from === Processing && to === Complete)

/** Whose steps between two looks are whose; above a module all of them are made below. */
const isLegalStep = (
  { by, from, to }: Extract<SlotEvent, { readonly _tag: "Moved" }>,
  wasReset: boolean,
  isAbove: boolean
): boolean => {
  if (isAbove) return by === "Hypervisor" && (to === Free || to === Pending || to === Processing || to === Complete)
  return by === "Service" ? isLegalForService(from, to) : isLegalForHypervisor(from, to, wasReset)
}

const problemOfHistory = (history: SlotHistory, wasReset: boolean, isAbove: boolean): string | undefined => {
  const events = history.events()
  // Of a slot whose first events were not kept, the state is known from its first step on.
  const first = history.count() === events.length ? Free : undefined
  const states = new Map<string, number>()
  for (const [index, event] of events.entries()) {
    const key = `${event.page}.${event.slot}`
    const state = states.get(key) ?? first
    if (event._tag !== "Moved") {
      if (state === undefined || state === Processing || (state === Pending && !isAbove)) continue
      return `event ${index + 1}: the Service VM ${event._tag === "Read" ? "read" : "wrote to"} slot ${event.slot}, ` +
        "which is the hypervisor's"
    }
    states.set(key, event.to)
    if (!isLegalStep(event, wasReset, isAbove)) {
      return `event ${index + 1}: slot ${event.slot} went from state ${event.from} to ${event.to}`
    }
  }
  return undefined
}

const guestHolds = ({ commands, guest }: Guest, subject: Law.Subject) =>
  Effect.gen(function*() {
    const resumption = Context.getOption(subject.context, Resume)
    const { vm } = yield* ProgramCase.prepare(guest)
    let wasReset = false
    const acts = yield* Moments.at(vm, commands.map(({ moment }) => moment), (index) =>
      Effect.gen(function*() {
        const paused = yield* running.pauseWithin("1 minute")
        if (commands[index]!.isReset || Option.isNone(resumption)) {
          wasReset = true
          running = yield* (yield* paused.reset).start
        } else {
          running = yield* Effect.provideService(paused.resume, Resume, resumption.value)
        }
      }))
    let running: RunningVm = yield* vm.start
    // Each reset ends a life.
    while ((yield* acts.unlessFailed(running.ended))._tag === "Stopped") yield* acts.finished
    yield* acts.finished
    const problem = problemOfHistory(subject.history, wasReset, isAboveModule(subject))
    if (problem !== undefined) return yield* Law.broken(problem)
  })

const handHolds = ({ steps, vcpus }: ByHand) =>
  Effect.gen(function*() {
    const { notified, page, raise, vm } = yield* VmByHand.make({ vcpus })
    const model = new SlotModel(MAX_VCPUS, page.bytes())
    const held = new Set<number>()
    const calls = yield* VmByHand.keeper(vm)
    let modelCalls = 0
    let reports = 0

    const fill = (slot: number, request: IoRequest.IoRequest, state: number) => {
      model.submit(slot, request, false)
      model.move(slot, state)
      page.fill(slot, slotBytes(request, state))
    }
    for (let slot = 0; slot < MAX_VCPUS; slot++) fill(slot, ofVcpu(FIRST_REQUEST, slot), Free)

    /** Whether the slot shows what nobody may have set. */
    const isForeign = (slot: number): boolean => {
      const { state } = model.slots[slot]!
      return held.has(slot) ? state !== Processing : state !== Pending && state !== Free && state !== Complete
    }

    const modelServe = (slot: number) => {
      if (slot >= vcpus) return
      if (isForeign(slot)) reports++
      else if (!held.has(slot) && model.slots[slot]!.state === Pending) {
        model.move(slot, Processing)
        held.add(slot)
        modelCalls++
      }
    }

    const take = (step: Step): Effect.Effect<string | undefined> =>
      Effect.gen(function*() {
        switch (step._tag) {
          case "Submit":
            fill(step.slot, ofVcpu(step.request, step.slot), Pending)
            return
          case "Set":
            model.move(step.slot, step.code)
            page.setState(step.slot, step.code)
            return
          case "Upcall":
            for (const slot of step.slot === undefined ? model.slots.keys() : [step.slot]) modelServe(slot)
            raise(step.slot)
            return
          case "Reply": {
            const [call] = calls.splice(-1 - step.newest, 1)
            if (call === undefined) return
            modelCalls--
            const slot = call.request.vcpu
            if (isForeign(slot)) reports++
            else model.finish(slot, step.value, call.request)
            held.delete(slot)
            modelServe(slot)
            call.reply(step.value)
            return
          }
          case "Look": {
            const result = yield* Effect.result(vm.requests.pending(step.slot))
            const found = Result.isSuccess(result)
              ? result.success === undefined ? "Nothing" : "Request"
              : result.failure.reason._tag
            const expected = isForeign(step.slot)
              ? "Foreign"
              : !held.has(step.slot) && model.slots[step.slot]!.state === Pending
              ? "Request"
              : "Nothing"
            return found === expected ? undefined : `the look came to ${found}, not to ${expected}`
          }
        }
      })

    for (const [index, step] of steps.entries()) {
      const problem = yield* take(step)
      const reported = (yield* vm.io.recentEvents).filter(({ _tag }) => _tag === "ForeignStep").length
      const after = problem ?? difference(page.bytes(), model.page) ??
        (reported === reports ? undefined : `foreign states were reported ${reported} times, not ${reports}`) ??
        (calls.length === modelCalls ? undefined : `the client holds ${calls.length} calls, not ${modelCalls}`) ??
        (notified.join() === model.notified.join() ? undefined : "the wrong vCPUs were notified")
      if (after !== undefined) return yield* Law.broken(`after step ${index + 1} (${showStep(step)}): ${after}`)
    }
  })

const showStep = (step: Step): string => {
  switch (step._tag) {
    case "Submit":
      return `guest: ${IoRequest.format(ofVcpu(step.request, step.slot))}`
    case "Set":
      return `the state of slot ${step.slot} becomes ${step.code}`
    case "Upcall":
      return step.slot === undefined ? "upcall" : `upcall for slot ${step.slot}`
    case "Reply":
      return `the client answers ${String(step.value)} to its call ${step.newest} back`
    case "Look":
      return `look at slot ${step.slot}`
  }
}

// States, those next to them, and words that no comparison of bytes must take for them.
const CODES = [Free, Pending, Processing, Complete, 4, -1, 0x100, 0x7fff_ffff, -0x8000_0000]

const stepOf = (vcpus: number): Generator.Generator<Step> => {
  const existing = Generator.integer(0, vcpus - 1)
  const slot = Generator.integer(0, Math.min(vcpus, MAX_VCPUS - 1))
  const submit = Generator.map(
    Generator.all({ slot, request: anyRequest }),
    (chosen): Step => ({ _tag: "Submit", ...chosen })
  )
  const upcall = Generator.map(
    Generator.oneOf<number | undefined>(slot, Generator.constant(undefined)),
    (chosen): Step => ({ _tag: "Upcall", slot: chosen })
  )
  return Generator.oneOf<Step>(
    submit,
    submit,
    upcall,
    upcall,
    Generator.map(
      Generator.all({ newest: Generator.integer(0, 2), value: anyAnswer }),
      (chosen): Step => ({ _tag: "Reply", ...chosen })
    ),
    Generator.map(
      Generator.all({ slot, code: Generator.elementOf(CODES) }),
      (chosen): Step => ({ _tag: "Set", ...chosen })
    ),
    Generator.map(existing, (chosen): Step => ({ _tag: "Look", slot: chosen }))
  )
}

export const slotStates = Law.make<Case>({
  number: 1,
  title: "a slot's state moves Free > Pending > Processing > Complete > Free only, and any other state is not obeyed",
  cases: (subject) =>
    guestsAlone<Case>(
      subject,
      Generator.map(slotCases(subject, stepOf), (slots): Case => ({ _tag: "ByHand", ...slots })),
      Generator.map(
        Generator.all({
          guest: ProgramCase.cases(subject, { answers: World.failing }),
          commands: Generator.array(
            Generator.all({ moment: Moments.generator, isReset: Generator.boolean }),
            { maxLength: 3 }
          )
        }),
        (chosen): Case => ({ _tag: "Guest", ...chosen })
      )
    ),
  show: (value) =>
    value._tag === "Guest"
      ? [
        ProgramCase.show(value.guest),
        ...value.commands.map(({ isReset, moment }) =>
          `pause, and ${isReset ? "reset" : "resume"}: ${Moments.format(moment)}`
        )
      ].join("\n")
      : [
        `${value.vcpus} vCPU(s)`,
        ...value.steps.map((step, index) => `${index + 1}. ${showStep(step)}`)
      ].join("\n"),
  holds: (value, subject) => value._tag === "Guest" ? guestHolds(value, subject) : handHolds(value)
})
