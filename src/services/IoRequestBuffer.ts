/**
 * The shared page of 16 I/O request slots, slot by slot, for programs that dispatch requests themselves and for people
 * who look. Most programs use `IoDispatcher`, which works on the same page.
 *
 * The state is in the type: a `Slot<"Pending">` can be claimed or answered, a `Slot<"Processing">` completed. JS types
 * are not linear, so a handle that is used twice is refused when it is used, by state and epoch.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { SlotStateCode, slotStateOf } from "../domain/abi/IoRequestSlot.ts"
import { VcpuId } from "../domain/Address.ts"
import { IoRange } from "../domain/IoRange.ts"
import { IoRequest, type IoValue } from "../domain/IoRequest.ts"
import { MAX_VCPUS } from "../domain/Limits.ts"
import { RequestState } from "../domain/RequestState.ts"
import { pageFor } from "./dispatch/DefaultClientPage.ts"
import { formatView } from "./dispatch/formatView.ts"
import type { PageUse } from "./dispatch/PageUse.ts"
import { byHand, type RequestPage } from "./dispatch/RequestPage.ts"
import { HypercallGate } from "./HypercallGate.ts"
import { ServiceMemory, type ServiceMemoryError } from "./ServiceMemory.ts"

/**
 * A slot in a known state. `epoch` tells one request of the slot from the next.
 *
 * @category models
 * @since 0.1.0
 */
export type Slot<S extends "Pending" | "Processing" | "Complete"> = S extends "Pending" ? PendingSlot
  : S extends "Processing" ? ProcessingSlot
  : CompleteSlot

/**
 * A request that nobody has taken yet.
 *
 * @category models
 * @since 0.1.0
 */
export interface PendingSlot {
  readonly state: "Pending"
  readonly vcpu: VcpuId
  readonly request: IoRequest
  /** PENDING -> PROCESSING. */
  readonly claim: Effect.Effect<ProcessingSlot, IoRequestBufferError>
  /** PENDING -> COMPLETE, for requests that need no client. */
  readonly answer: (value: IoValue) => Effect.Effect<CompleteSlot, IoRequestBufferError>
}

/**
 * A request that is held.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProcessingSlot {
  readonly state: "Processing"
  readonly vcpu: VcpuId
  readonly epoch: number
  readonly request: IoRequest
  /** PROCESSING -> COMPLETE: writes the value, then the state, then tells the hypervisor. */
  readonly complete: (value: IoValue) => Effect.Effect<CompleteSlot, IoRequestBufferError>
}

/**
 * A request that was answered; the slot is the hypervisor's again.
 *
 * @category models
 * @since 0.1.0
 */
export interface CompleteSlot {
  readonly state: "Complete"
  readonly vcpu: VcpuId
}

/**
 * - `NoSuchVcpu`: the VM has fewer vCPUs.
 * - `Stale`: the handle's request was taken, completed or cleared meanwhile.
 * - `Foreign`: the page shows a state that nobody may have set; it was not obeyed.
 * - `Malformed`: the slot held no possible request; it was answered with all-ones.
 *
 * @category errors
 * @since 0.1.0
 */
export const IoRequestBufferErrorReason = Schema.TaggedUnion({
  NoSuchVcpu: { vcpu: Schema.Number, vcpus: Schema.Number },
  Stale: { vcpu: Schema.Number, epoch: Schema.Number, currentEpoch: Schema.Number },
  Foreign: { vcpu: Schema.Number, problem: Schema.String },
  Malformed: { vcpu: Schema.Number, problem: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type IoRequestBufferErrorReason = typeof IoRequestBufferErrorReason.Type

/**
 * A step on a slot that was refused. Nothing on the page was changed, save that a malformed request was answered.
 *
 * @category errors
 * @since 0.1.0
 */
export class IoRequestBufferError
  extends Schema.TaggedError<IoRequestBufferError>()("IoRequestBufferError", { reason: IoRequestBufferErrorReason })
{
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "NoSuchVcpu":
        return `there is no slot for vCPU ${reason.vcpu}: the VM has ${reason.vcpus}, counted from 0`
      case "Stale":
        return `this request of vCPU ${reason.vcpu} (epoch ${reason.epoch}) is over, the slot is at epoch ` +
          `${reason.currentEpoch}; complete each claim once, and none after a reset`
      case "Foreign":
        return `slot of vCPU ${reason.vcpu}: ${reason.problem}; it was not obeyed`
      case "Malformed":
        return `slot of vCPU ${reason.vcpu} holds no possible request: ${reason.problem}; it was answered with all-ones`
    }
  }
}

/**
 * What a slot looks like to a person.
 *
 * - `state`: what the page says, as a code when it is none of the four states.
 * - `owner`: who may move the slot on. `Nobody` is a state that nobody may have set: the page says PROCESSING of what
 *   nobody holds, or something else of what is held.
 * - `held`: a client, or a program by hand, has the request; `client` and `request` say which, also when the page was
 *   changed since. A request that waits for its client is read from the page, and `problem` says why it cannot be one.
 * - `ageMs`: milliseconds since the request was claimed, of the VM's time (of the host's where the VM has none of its
 *   own). A request whose handler is only starting has none.
 * - `epoch`: tells one request of the slot from the next.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SlotView = Schema.Struct({
  vcpu: VcpuId,
  state: Schema.Union([RequestState, Schema.Struct({ unknown: Schema.Int })]),
  owner: Schema.Literals(["Hypervisor", "Service", "Nobody"]),
  held: Schema.Boolean,
  epoch: Schema.Natural,
  client: Schema.optionalKey(Schema.String),
  request: Schema.optionalKey(IoRequest),
  problem: Schema.optionalKey(Schema.String),
  ageMs: Schema.optionalKey(Schema.Finite)
})

/**
 * @category models
 * @since 0.1.0
 */
export type SlotView = typeof SlotView.Type

const OwnedRange = Schema.Struct({ client: Schema.String, range: IoRange })

/**
 * A snapshot of a VM's page for people. `ranges` are those of the VM's clients, sorted by space (ports, MMIO, PCI
 * functions, the rest of PCI) and address; `nearMisses` the last eight accesses that nobody owned, oldest first, with
 * the ranges closest to them. Over a bare page, without a dispatcher, both are empty.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PageView = Schema.Struct({
  slots: Schema.Array(SlotView),
  ranges: Schema.Array(OwnedRange),
  nearMisses: Schema.Array(Schema.Struct({ request: IoRequest, nearest: Schema.Array(OwnedRange) }))
})

/**
 * @category models
 * @since 0.1.0
 */
export type PageView = typeof PageView.Type

/**
 * A snapshot as a readable table: a line for each slot, and below it the ranges and near misses, if there are any.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format: (view: PageView) => string = formatView

/**
 * The slots of one VM.
 *
 * @category services
 * @since 0.1.0
 */
export class IoRequestBuffer extends Context.Service<IoRequestBuffer, {
  /** vCPUs, and so slots that are looked at. */
  readonly vcpus: number
  /** The request that a slot shows as pending, read once; `undefined` when it is in any other proper state. */
  readonly pending: (vcpu: number) => Effect.Effect<PendingSlot | undefined, IoRequestBufferError>
  /** Every slot as it stands, and who would get what comes. It changes nothing. */
  readonly inspect: Effect.Effect<PageView>
}>()("upcall/services/IoRequestBuffer") {}

/**
 * The slots of a VM whose page is at the service address `page`, over a bare hypervisor. For programs that make their
 * own hypercalls; a `VirtualMachine` has one ready. Fails when there is no page at that address, and with `NoSuchVcpu`
 * when `vcpus` is not 1 to 16.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: { readonly vmId: number; readonly page: number; readonly vcpus: number }): Effect.Effect<
  IoRequestBuffer["Service"],
  ServiceMemoryError | IoRequestBufferError,
  HypercallGate | ServiceMemory
> =>
  Effect.gen(function*() {
    const { vcpus } = options
    if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) {
      return yield* new IoRequestBufferError({ reason: { _tag: "NoSuchVcpu", vcpu: vcpus - 1, vcpus: MAX_VCPUS } })
    }
    const gate = yield* HypercallGate
    const memory = yield* ServiceMemory
    const page = yield* Effect.fromResult(memory.page(options.page))
    return fromPage(pageFor(gate.profile.dispatchRole, page, vcpus, (vcpu) => gate.notifyFinish(options.vmId, vcpu)))
  })

/** A page that no dispatcher works on. */
const bareUse = (page: RequestPage): PageUse => ({
  holder: (vcpu) => byHand(page, vcpu),
  ranges: () => [],
  nearMisses: () => []
})

// A kernel's module between the hypervisor and this program is the hypervisor's side of it.
const ownerOf = (page: RequestPage, vcpu: number, code: number, isHeld: boolean): SlotView["owner"] => {
  if (isHeld) return code === SlotStateCode.Processing ? "Service" : "Nobody"
  if (page.isOffered(vcpu, code)) return "Service"
  return page.isElsewhere(code) ? "Hypervisor" : "Nobody"
}

const viewSlot = (page: RequestPage, use: PageUse, vcpu: number): SlotView => {
  const { code, problem, request } = page.peek(vcpu)
  const held = page.isHeld(vcpu)
  const shown = {
    vcpu: VcpuId.make(vcpu),
    state: slotStateOf(code) ?? { unknown: code },
    owner: ownerOf(page, vcpu, code, held),
    held,
    epoch: page.epoch(vcpu)
  }
  const holder = held ? use.holder(vcpu) : undefined
  if (holder !== undefined) {
    const { ageMs, client } = holder
    return { ...shown, client, request: holder.request, ...ageMs === undefined ? {} : { ageMs } }
  }
  return { ...shown, ...request === undefined ? {} : { request }, ...problem === "" ? {} : { problem } }
}

/**
 * The service over a page that a VM's dispatcher works on, too; for Upcall's own use.
 *
 * @internal
 * @category constructors
 * @since 0.1.0
 */
export const fromPage = (page: RequestPage, use: PageUse = bareUse(page)): IoRequestBuffer["Service"] => {
  const refuse = (reason: IoRequestBufferErrorReason) => Effect.fail(new IoRequestBufferError({ reason }))
  const stale = (vcpu: number, epoch: number) => refuse({ _tag: "Stale", vcpu, epoch, currentEpoch: page.epoch(vcpu) })

  const processing = (vcpu: VcpuId, epoch: number, request: IoRequest): ProcessingSlot => ({
    state: "Processing",
    vcpu,
    epoch,
    request,
    complete: (value) =>
      Effect.suspend(() => {
        switch (page.completeByHand(vcpu, epoch, value)) {
          case "Completed":
            return Effect.succeed<CompleteSlot>({ state: "Complete", vcpu })
          case "Stale":
            return stale(vcpu, epoch)
          case "Foreign":
            return refuse({ _tag: "Foreign", vcpu, problem: page.problem })
        }
      })
  })

  const pendingSlot = (vcpu: VcpuId, epoch: number, request: IoRequest): PendingSlot => {
    const isCurrent = () =>
      page.epoch(vcpu) === epoch && !page.isHeld(vcpu) && page.isOffered(vcpu, page.stateCode(vcpu))
    return {
      state: "Pending",
      vcpu,
      request,
      claim: Effect.clockWith((clock) =>
        isCurrent()
          ? Effect.succeed(processing(vcpu, page.claimByHand(vcpu, request, clock), request))
          : stale(vcpu, epoch)
      ),
      answer: (value) =>
        Effect.suspend(() => {
          // Guard: stray-completion
          if (!isCurrent()) return stale(vcpu, epoch)
          page.answer(vcpu, value)
          return Effect.succeed<CompleteSlot>({ state: "Complete", vcpu })
        })
    }
  }

  return IoRequestBuffer.of({
    vcpus: page.vcpus,
    pending: (vcpu) =>
      Effect.suspend(() => {
        // Guard: cve-2019-14821
        if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= page.vcpus) {
          return refuse({ _tag: "NoSuchVcpu", vcpu, vcpus: page.vcpus })
        }
        switch (page.look(vcpu)) {
          case "NotPending":
            return Effect.succeed(undefined)
          case "Foreign":
            return refuse({ _tag: "Foreign", vcpu, problem: page.problem })
          case "Malformed": {
            // As the dispatcher does: nobody could complete it, and its vCPU must not wait for ever.
            const problem = page.problem
            page.answer(vcpu, undefined)
            return refuse({ _tag: "Malformed", vcpu, problem })
          }
          case "Request":
            return Effect.succeed(pendingSlot(VcpuId.make(vcpu), page.epoch(vcpu), page.request!))
        }
      }),
    inspect: Effect.sync(() => ({
      slots: Array.from({ length: page.vcpus }, (_, vcpu) => viewSlot(page, use, vcpu)),
      ranges: use.ranges(),
      nearMisses: use.nearMisses()
    }))
  })
}
