/**
 * What goes wrong in the command line program itself, rather than in the library.
 */
import * as Schema from "effect/Schema"

/**
 * `Unreadable`: the file at `path` could not be read, because of `problem`.
 */
const Reason = Schema.TaggedUnion({
  Unreadable: { path: Schema.String, problem: Schema.String }
})

export class CliError extends Schema.TaggedError<CliError>()("CliError", { reason: Reason }) {
  override get message(): string {
    return `cannot read ${this.reason.path}: ${this.reason.problem}`
  }
}
