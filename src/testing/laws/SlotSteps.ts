/**
 * Sequences of steps on slots whose hypervisor is the law: typed slots, a client, resets. The oracle is the slot's state
 * machine and nothing else: what is held has one holder, a handle is good until something happens to its slot, and every
 * byte of the page is predicted.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../../domain/Limits.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import type { Hypervisor } from "../../services/Hypervisor.ts"
import * as IoRequestBuffer from "../../services/IoRequestBuffer.ts"
import { ServiceMemory } from "../../services/ServiceMemory.ts"
import type { PausedVm } from "../../services/Vm.ts"
import * as Law from "../Law.ts"
import { withNotifyFinish } from "./over.ts"
import { difference, PageByHand, slotBytes } from "./PageByHand.ts"
import { ofVcpu } from "./requests.ts"
import { SlotModel } from "./SlotModel.ts"
import * as VmByHand from "./VmByHand.ts"

/**
 * - `Submit`: the guest asks, if it is not waiting; the hypervisor frees the slot of an answered request first.
 * - `Look`, `Claim`, `Answer`, `Complete`: typed slots. `newest` counts handles back from the newest.
 * - `Take`: a look, and a claim by what it found.
 * - `Upcall`: the dispatcher gives what is pending to the VM's one client, which holds it until `Reply`.
 * - `Leave`: that client's scope closes. `Reset`: the VM is paused and reset.
 */
export type Step =
  | {
    readonly _tag: "Submit"
    readonly slot: number
    readonly request: IoRequest.IoRequest
    readonly isPolled: boolean
  }
  | { readonly _tag: "Look"; readonly slot: number }
  | { readonly _tag: "Take"; readonly slot: number }
  | { readonly _tag: "Claim"; readonly newest: number }
  | { readonly _tag: "Answer"; readonly newest: number; readonly value: IoRequest.IoValue }
  | { readonly _tag: "Complete"; readonly newest: number; readonly value: IoRequest.IoValue }
  | { readonly _tag: "Upcall"; readonly slot: number | undefined }
  | { readonly _tag: "Reply"; readonly newest: number; readonly value: IoRequest.IoValue }
  | { readonly _tag: "Leave" }
  | { readonly _tag: "Reset" }

/** `isOfVm`: the page is a VM's, whose dispatcher is at work on it too; else it is the typed slots' alone. */
export interface SlotCase {
  readonly isOfVm: boolean
  readonly vcpus: number
  readonly steps: ReadonlyArray<Step>
}

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

/** A handle with what its slot had been through when it was made. */
interface Taken<H> {
  readonly handle: H
  readonly slot: number
  readonly serial: number
}

/** The slots under test, and what the steps have in hand of them. */
interface Bench {
  readonly buffer: IoRequestBuffer.IoRequestBuffer["Service"]
  readonly page: PageByHand
  readonly notified: ReadonlyArray<number>
  readonly upcall: (slot: number | undefined) => void
  readonly leave: Effect.Effect<void>
  readonly reset: Effect.Effect<void, { readonly message: string }>
  readonly calls: ReadonlyArray<VmByHand.Call>
}

const benchOfItsOwn = (vcpus: number) =>
  Effect.gen(function*() {
    const memory = yield* ServiceMemory
    const gate = yield* HypercallGate
    const { address } = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } })
    const page = new PageByHand(memory, address)
    for (let slot = 0; slot < MAX_VCPUS; slot++) page.setState(slot, Free)
    const notified: Array<number> = []
    const buffer = yield* IoRequestBuffer.make({ vmId: 0, page: address, vcpus }).pipe(
      Effect.provideService(
        HypercallGate,
        withNotifyFinish(gate, (_, vcpu) => {
          notified.push(vcpu)
          return 0
        })
      )
    )
    const bench: Bench = {
      buffer,
      page,
      notified,
      upcall: () => undefined,
      leave: Effect.void,
      reset: Effect.void,
      calls: []
    }
    return bench
  })

const benchOfVm = (vcpus: number) =>
  Effect.gen(function*() {
    const { notified, page, raise, vm } = yield* VmByHand.make({ vcpus })
    const scope = yield* Scope.fork(yield* Effect.scope)
    const calls = yield* Scope.provide(VmByHand.keeper(vm), scope)
    let pause: Effect.Effect<PausedVm, { readonly message: string }> = vm.pause
    const bench: Bench = {
      buffer: vm.requests,
      page,
      notified,
      upcall: raise,
      leave: Scope.close(scope, Exit.void),
      reset: Effect.gen(function*() {
        const created = yield* (yield* pause).reset
        pause = created.pause
      }),
      calls
    }
    return bench
  })

const ascending = (vcpus: ReadonlyArray<number>): string => vcpus.toSorted((a, b) => a - b).join()

const pick = <A>(list: ReadonlyArray<A>, newest: number): A | undefined =>
  list.length === 0 ? undefined : list[list.length - 1 - newest % list.length]

export const holds = (
  { isOfVm, steps, vcpus }: SlotCase
): Effect.Effect<void, { readonly message: string }, Hypervisor | Scope.Scope> =>
  Effect.gen(function*() {
    const bench: Bench = yield* isOfVm ? benchOfVm(vcpus) : benchOfItsOwn(vcpus)
    const model = new SlotModel(vcpus, bench.page.bytes())
    const pending: Array<Taken<IoRequestBuffer.PendingSlot>> = []
    const processing: Array<Taken<IoRequestBuffer.ProcessingSlot>> = []
    // The serial at which the client came to hold what each of its calls is about.
    const callSerials: Array<number> = []
    let hasLeft = false

    const isGood = ({ serial, slot }: { readonly serial: number; readonly slot: number }) =>
      model.slots[slot]!.serial === serial

    /** A step by a handle that must be taken when the handle is good, and else be refused as stale. */
    const byHandle = <A>(
      step: Effect.Effect<A, IoRequestBuffer.IoRequestBufferError>,
      good: boolean
    ): Effect.Effect<A | undefined, Law.LawBroken> =>
      Effect.flatMap(Effect.result(step), (result) => {
        if (good) {
          return Result.isSuccess(result)
            ? Effect.succeed(result.success)
            : Law.broken(`it was refused, though its handle is good: ${result.failure.message}`)
        }
        if (Result.isSuccess(result)) return Law.broken("it was done, though its handle is stale")
        return result.failure.reason._tag === "Stale"
          ? Effect.succeed(undefined)
          : Law.broken(`its stale handle was refused as ${result.failure.reason._tag}`)
      })

    const look = (slot: number) =>
      Effect.gen(function*() {
        const result = yield* Effect.result(bench.buffer.pending(slot))
        const expected = model.slots[slot]
        if (Result.isFailure(result)) {
          return expected === undefined && result.failure.reason._tag === "NoSuchVcpu"
            ? undefined
            : yield* Law.broken(`the look was refused: ${result.failure.message}`)
        }
        const found = result.success
        if (expected === undefined) return yield* Law.broken(`slot ${slot} does not exist but was looked at`)
        if ((found !== undefined) !== (expected.state === Pending)) {
          return yield* Law.broken(`the look found ${found === undefined ? "nothing" : "a request"}`)
        }
        if (found === undefined) return
        const [is, was] = [IoRequest.format(found.request), IoRequest.format(expected.request!)]
        if (is !== was) return yield* Law.broken(`the look found "${is}", the guest asked "${was}"`)
        pending.push({ handle: found, slot, serial: expected.serial })
      })

    const claim = (newest: number) =>
      Effect.gen(function*() {
        const taken = pick(pending, newest)
        if (taken === undefined) return
        const claimed = yield* byHandle(taken.handle.claim, isGood(taken))
        if (claimed === undefined) return
        model.move(taken.slot, Processing)
        processing.push({ handle: claimed, slot: taken.slot, serial: model.slots[taken.slot]!.serial })
      })

    /** What the dispatcher does with a slot that it is told to look at. */
    const modelServe = (slot: number) => {
      const expected = model.slots[slot]!
      if (expected.state !== Pending) return
      if (hasLeft) return model.finish(slot, undefined)
      model.move(slot, Processing)
      callSerials.push(expected.serial)
    }

    const take = (step: Step): Effect.Effect<void, { readonly message: string }> =>
      Effect.gen(function*() {
        switch (step._tag) {
          case "Submit": {
            const { state } = model.slots[step.slot]!
            if (state !== Free && state !== Complete) return
            const request = ofVcpu(step.request, step.slot)
            model.submit(step.slot, request, step.isPolled)
            return bench.page.fill(step.slot, slotBytes(request, Pending, step.isPolled))
          }
          case "Look":
            return yield* look(step.slot)
          case "Take": {
            yield* look(step.slot)
            return model.slots[step.slot]?.state === Pending ? yield* claim(0) : undefined
          }
          case "Claim":
            return yield* claim(step.newest)
          case "Answer": {
            const taken = pick(pending, step.newest)
            if (taken === undefined) return
            const done = yield* byHandle(taken.handle.answer(step.value), isGood(taken))
            return done === undefined ? undefined : model.finish(taken.slot, step.value)
          }
          case "Complete": {
            const taken = pick(processing, step.newest)
            if (taken === undefined) return
            const done = yield* byHandle(taken.handle.complete(step.value), isGood(taken))
            return done === undefined ? undefined : model.finish(taken.slot, step.value)
          }
          case "Upcall": {
            if (!isOfVm) return
            bench.upcall(step.slot)
            const looked = step.slot === undefined ? model.slots.keys() : [step.slot]
            for (const slot of looked) modelServe(slot)
            return
          }
          case "Reply": {
            const call = pick(bench.calls, step.newest)
            if (call === undefined) return
            const slot = call.request.vcpu
            const serial = callSerials[bench.calls.indexOf(call)]!
            call.reply(step.value)
            if (isGood({ slot, serial })) model.finish(slot, step.value)
            return
          }
          case "Leave": {
            if (!isOfVm || hasLeft) return
            hasLeft = true
            yield* bench.leave
            for (const [index, { request: { vcpu: slot } }] of bench.calls.entries()) {
              if (isGood({ slot, serial: callSerials[index]! })) model.finish(slot, undefined)
            }
            return
          }
          case "Reset":
            if (!isOfVm) return
            model.reset()
            return yield* bench.reset
        }
      })

    for (const [index, step] of steps.entries()) {
      const at = `step ${index + 1} (${showStep(step)})`
      yield* Effect.catch(take(step), (error) => Law.broken(`${at}: ${error.message}`))
      const onPage = difference(bench.page.bytes(), model.page)
      if (onPage !== undefined) return yield* Law.broken(`after ${at}: ${onPage}`)
      if (bench.calls.length !== callSerials.length) {
        return yield* Law.broken(
          `after ${at}: the client was asked ${bench.calls.length} times, not ${callSerials.length}`
        )
      }
      // In one step the slots of a client may be answered in any order.
      if (ascending(bench.notified) !== ascending(model.notified)) {
        return yield* Law.broken(
          `after ${at}: vCPUs [${bench.notified.join()}] were notified, not [${model.notified.join()}]`
        )
      }
    }
  })

const showStep = (step: Step): string => {
  switch (step._tag) {
    case "Submit":
      return `guest: ${IoRequest.format(ofVcpu(step.request, step.slot))}${step.isPolled ? ", polled" : ""}`
    case "Look":
      return `look at slot ${step.slot}`
    case "Take":
      return `take slot ${step.slot}`
    case "Claim":
      return `claim by pending handle ${step.newest} back`
    case "Answer":
      return `answer ${String(step.value)} by pending handle ${step.newest} back`
    case "Complete":
      return `complete with ${String(step.value)} by handle ${step.newest} back`
    case "Upcall":
      return step.slot === undefined ? "upcall" : `upcall for slot ${step.slot}`
    case "Reply":
      return `the client answers ${String(step.value)} to its call ${step.newest} back`
    case "Leave":
      return "the client's scope closes"
    case "Reset":
      return "pause and reset"
  }
}

export const show = ({ isOfVm, steps, vcpus }: SlotCase): string =>
  [
    `${vcpus} slot(s) of ${isOfVm ? "a VM" : "a page of its own"}`,
    ...steps.map((step, index) => `${index + 1}. ${showStep(step)}`)
  ].join("\n")
