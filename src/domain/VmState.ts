/**
 * The life of a VM as ACRN's hypervisor knows it, as data: one pure `step`, and a schema that accepts only its steps.
 *
 * Facts that surprise (ACRN `hypervisor/common/hypercall.c`): PAUSE is accepted on a VM that was never started and on
 * one that is paused already, and only a paused VM can be reset or destroyed. ACRN has no resume; the layers that can
 * resume offer it as a capability, and only for a VM that was running.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

/**
 * `Paused.started` tells whether the VM was running before, and so whether there is anything to resume.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VmState = Schema.TaggedUnion({
  Created: {},
  Running: {},
  Paused: { started: Schema.Boolean },
  Destroyed: {}
})

/**
 * @category models
 * @since 0.1.0
 */
export type VmState = typeof VmState.Type

/**
 * @category models
 * @since 0.1.0
 */
export type VmStateTag = VmState["_tag"]

/**
 * @category schemas
 * @since 0.1.0
 */
export const VmCommand = Schema.Literals(["Start", "Pause", "Resume", "Reset", "Destroy"])

/**
 * @category models
 * @since 0.1.0
 */
export type VmCommand = typeof VmCommand.Type

/**
 * @category constructors
 * @since 0.1.0
 */
export const created: VmState = VmState.cases.Created.make({})

/**
 * @category constructors
 * @since 0.1.0
 */
export const running: VmState = VmState.cases.Running.make({})

/**
 * @category constructors
 * @since 0.1.0
 */
export const destroyed: VmState = VmState.cases.Destroyed.make({})
const pausedFresh: VmState = VmState.cases.Paused.make({ started: false })
const pausedStarted: VmState = VmState.cases.Paused.make({ started: true })

/**
 * Where a command leads from a state, or `undefined` when it is not legal there.
 *
 * @category transitions
 * @since 0.1.0
 */
export const target = (from: VmState, command: VmCommand): VmState | undefined => {
  switch (command) {
    case "Start":
      return from._tag === "Created" ? running : undefined
    case "Pause":
      switch (from._tag) {
        case "Created":
          return pausedFresh
        case "Running":
          return pausedStarted
        case "Paused":
          return from
        case "Destroyed":
          return undefined
      }
    // falls through: unreachable, every state returned above
    case "Resume":
      return from._tag === "Paused" && from.started ? running : undefined
    case "Reset":
      return from._tag === "Paused" ? created : undefined
    case "Destroy":
      return from._tag === "Paused" ? destroyed : undefined
  }
}

const same = (a: VmState, b: VmState): boolean =>
  a._tag === b._tag && (a._tag !== "Paused" || b._tag !== "Paused" || a.started === b.started)

/**
 * One legal step of a VM; decoding refuses every other.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VmTransition = Schema.TaggedStruct("VmTransition", {
  from: VmState,
  command: VmCommand,
  to: VmState
}).check(
  Schema.makeFilter((step) => {
    const to = target(step.from, step.command)
    return (to !== undefined && same(to, step.to)) ||
      `${step.command} does not lead from ${step.from._tag} to ${step.to._tag}`
  })
)

/**
 * @category models
 * @since 0.1.0
 */
export type VmTransition = typeof VmTransition.Type

/**
 * A command that a state does not accept.
 *
 * @category models
 * @since 0.1.0
 */
export interface IllegalVmStep {
  readonly from: VmState
  readonly command: VmCommand
}

/**
 * Takes one step, or says which was refused.
 *
 * @category transitions
 * @since 0.1.0
 */
export const step = (from: VmState, command: VmCommand): Result.Result<VmTransition, IllegalVmStep> => {
  const to = target(from, command)
  return to === undefined
    ? Result.fail({ from, command })
    : Result.succeed({ _tag: "VmTransition", from, command, to })
}

/**
 * The states that accept a command, for messages.
 *
 * @category formatting
 * @since 0.1.0
 */
export const acceptedIn = (command: VmCommand): string => {
  switch (command) {
    case "Start":
      return "Created"
    case "Pause":
      return "Created, Running or Paused"
    case "Resume":
      return "Paused (after it ran)"
    case "Reset":
    case "Destroy":
      return "Paused"
  }
}
