/**
 * What a dispatcher tells besides doing its work: accesses that nobody owns, handlers that failed, pages that misbehave.
 * Each of these was answered (with all-ones, or by not obeying); none of them stops a vCPU.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { VcpuId } from "./Address.ts"
import { IoRange } from "./IoRange.ts"
import * as IoRequest from "./IoRequest.ts"

/**
 * - `Unhandled`: no client owns the whole access and there is no default client; reads got all-ones, writes were
 *   dropped. `nearest` are the closest ranges of the same space.
 * - `HandlerFailed`: a client's handler failed or died; the request was completed with all-ones.
 * - `Malformed`: the slot held a request that cannot be one; it was answered with all-ones.
 * - `ForeignStep`: the page shows a state that nobody may have set; it was not obeyed.
 * - `Abandoned`: a client went away while it held the request, or the VM was closed; it got all-ones.
 * - `DeadlinePassed`: a client held the request for longer than its deadline, in milliseconds; the request was completed
 *   with all-ones and the handler interrupted.
 * - `NotifyRefused`: the hypervisor refused to hear of a completion; it is told again when the page is looked at next.
 * - `ObserverFailed`: an observer of requests threw; it hears no more.
 *
 * @category schemas
 * @since 0.1.0
 */
export const DispatchEvent = Schema.TaggedUnion({
  Unhandled: {
    request: IoRequest.IoRequest,
    nearest: Schema.Array(Schema.Struct({ client: Schema.String, range: IoRange }))
  },
  HandlerFailed: { client: Schema.String, request: IoRequest.IoRequest, problem: Schema.String },
  Malformed: { vcpu: VcpuId, problem: Schema.String },
  ForeignStep: { vcpu: VcpuId, problem: Schema.String },
  Abandoned: { client: Schema.String, request: IoRequest.IoRequest },
  DeadlinePassed: { client: Schema.String, request: IoRequest.IoRequest, deadlineMs: Schema.Number },
  NotifyRefused: { vcpu: VcpuId, result: Schema.Int },
  ObserverFailed: { problem: Schema.String }
})

/**
 * @category models
 * @since 0.1.0
 */
export type DispatchEvent = typeof DispatchEvent.Type
