/**
 * The state machine of one I/O request slot, as data: `Free -> Pending -> Processing -> Complete -> Free`, with the
 * short cut `Pending -> Complete` for requests that the Service VM answers itself.
 *
 * Facts: the state diagram above `struct acrn_io_request` in `<linux/acrn.h>`.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { VcpuId } from "./Address.ts"

/**
 * @category schemas
 * @since 0.1.0
 */
export const RequestState = Schema.Literals(["Free", "Pending", "Processing", "Complete"])

/**
 * @category models
 * @since 0.1.0
 */
export type RequestState = typeof RequestState.Type

/**
 * What moves a slot on. `Submit` and `Release` are the hypervisor's, `Claim`, `Complete` and `Answer` the Service
 * VM's; `Clear` is the hypervisor's when it resets the VM or takes a new page.
 *
 * @category schemas
 * @since 0.1.0
 */
export const RequestCommand = Schema.Literals(["Submit", "Claim", "Complete", "Answer", "Release", "Clear"])

/**
 * @category models
 * @since 0.1.0
 */
export type RequestCommand = typeof RequestCommand.Type

const steps: Readonly<Record<Exclude<RequestCommand, "Clear">, readonly [from: RequestState, to: RequestState]>> = {
  Submit: ["Free", "Pending"],
  Claim: ["Pending", "Processing"],
  Complete: ["Processing", "Complete"],
  Answer: ["Pending", "Complete"],
  Release: ["Complete", "Free"]
}

/**
 * Where a command leads from a state, or `undefined` when it is not legal there.
 *
 * @category transitions
 * @since 0.1.0
 */
export const target = (from: RequestState, command: RequestCommand): RequestState | undefined => {
  if (command === "Clear") return "Free"
  const [legalFrom, to] = steps[command]
  return from === legalFrom ? to : undefined
}

/**
 * One legal step of one slot. Decoding refuses every other step, so a log of these is a proof of order.
 *
 * @category schemas
 * @since 0.1.0
 */
export const RequestTransition = Schema.TaggedStruct("RequestTransition", {
  vcpu: VcpuId,
  epoch: Schema.Natural,
  from: RequestState,
  command: RequestCommand,
  to: RequestState
}).check(
  Schema.makeFilter((step) =>
    target(step.from, step.command) === step.to || `${step.command} does not lead from ${step.from} to ${step.to}`
  )
)

/**
 * @category models
 * @since 0.1.0
 */
export type RequestTransition = typeof RequestTransition.Type

/**
 * Why a step was refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface IllegalRequestStep {
  readonly from: RequestState
  readonly command: RequestCommand
}

/**
 * Takes one step, or says which step was refused.
 *
 * @category transitions
 * @since 0.1.0
 */
export const step = (
  from: RequestState,
  command: RequestCommand
): Result.Result<RequestState, IllegalRequestStep> => {
  const to = target(from, command)
  return to === undefined ? Result.fail({ from, command }) : Result.succeed(to)
}
