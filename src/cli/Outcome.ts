/**
 * How a run of a VM ended, in words and as an exit status.
 */
import * as EndReason from "../domain/EndReason.ts"

/**
 * - `Ended`: the guest stopped by itself.
 * - `TimedOut`: it did not within `seconds`.
 * - `Quit`: the user typed Ctrl-A x.
 * - `Interrupted`: the user typed Ctrl-C.
 * - `OutputClosed`: nobody reads the console any more.
 */
export type Outcome =
  | { readonly _tag: "Ended"; readonly reason: EndReason.EndReason }
  | { readonly _tag: "TimedOut"; readonly seconds: number }
  | { readonly _tag: "Quit" }
  | { readonly _tag: "Interrupted" }
  | { readonly _tag: "OutputClosed" }

/** Exit statuses of our own, by what they mean; a guest's own status (0 to 255) may be equal to one. */
export const EXIT = {
  /** The VM could not be made: a file, an option's value, or what a hypervisor cannot do. */
  failure: 1,
  /** The command line is not understood. */
  usage: 2,
  /** The guest crashed, or met what the hypervisor cannot execute, or the hypervisor failed (EX_SOFTWARE). */
  crash: 70,
  /** The guest ran past --timeout, as timeout(1) has it. */
  timeout: 124,
  /** 128 + SIGHUP, SIGINT, SIGPIPE and SIGTERM, as a shell has it. */
  hungUp: 129,
  interrupted: 130,
  outputClosed: 141,
  terminated: 143
} as const

export const exitStatus = (outcome: Outcome): number => {
  switch (outcome._tag) {
    case "Ended":
      switch (outcome.reason._tag) {
        case "Exited":
          return outcome.reason.status
        case "Halted":
        case "ResetRequested":
        case "Stopped":
          return 0
        case "Shutdown":
        case "UnsupportedInstruction":
        case "InternalError":
        case "Fault":
          return EXIT.crash
      }
    // falls through: unreachable, every reason returned above
    case "TimedOut":
      return EXIT.timeout
    case "Quit":
      return 0
    case "Interrupted":
      return EXIT.interrupted
    case "OutputClosed":
      return EXIT.outputClosed
  }
}

/** One sentence for people. */
export const format = (outcome: Outcome): string => {
  switch (outcome._tag) {
    case "Ended":
      return EndReason.format(outcome.reason)
    case "TimedOut":
      return `the guest still ran after ${outcome.seconds} ${outcome.seconds === 1 ? "second" : "seconds"} and was ` +
        "stopped; give it more with --timeout"
    case "Quit":
      return "the user quit with Ctrl-A x"
    case "Interrupted":
      return "the user stopped the VM with Ctrl-C"
    case "OutputClosed":
      return "the reader of the console's output is gone"
  }
}

/** Whether a user who asked for nothing more still has to be told. */
export const isWorthTelling = (outcome: Outcome): boolean => {
  switch (outcome._tag) {
    case "Ended":
      return ["Shutdown", "UnsupportedInstruction", "InternalError", "Fault"].includes(outcome.reason._tag)
    case "TimedOut":
    case "Quit":
    case "Interrupted":
      return true
    case "OutputClosed":
      return false
  }
}
