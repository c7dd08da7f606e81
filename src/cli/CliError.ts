/**
 * What goes wrong in the command line program itself, rather than in the library.
 */
import * as Schema from "effect/Schema"

/**
 * - `Unreadable`: the file at `path` could not be read, because of `problem`.
 * - `NotFlat`: the file at `path` was given as a flat binary but is `looksLike`.
 */
const Reason = Schema.TaggedUnion({
  Unreadable: { path: Schema.String, problem: Schema.String },
  NotFlat: { path: Schema.String, looksLike: Schema.String, advice: Schema.String }
})

export class CliError extends Schema.TaggedError<CliError>()("CliError", { reason: Reason }) {
  override get message(): string {
    const reason = this.reason
    return reason._tag === "Unreadable"
      ? `cannot read ${reason.path}: ${reason.problem}`
      : `${reason.path} is ${reason.looksLike}, not a flat binary: ${reason.advice}`
  }
}
