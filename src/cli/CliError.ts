/**
 * What goes wrong in the command line program itself, rather than in the library.
 */
import * as Schema from "effect/Schema"

/**
 * - `Unreadable`: the file at `path` could not be read, because of `problem`.
 * - `NotFlat`: the file at `path` was given as a flat binary but is `looksLike`.
 * - `HasAddress`: the file at `path`, of a format that says where it goes, was given an address.
 */
const Reason = Schema.TaggedUnion({
  Unreadable: { path: Schema.String, problem: Schema.String },
  NotFlat: { path: Schema.String, looksLike: Schema.String, advice: Schema.String },
  HasAddress: { path: Schema.String, format: Schema.String }
})

export class CliError extends Schema.TaggedError<CliError>()("CliError", { reason: Reason }) {
  override get message(): string {
    return Reason.match(this.reason, {
      Unreadable: (r) => `cannot read ${r.path}: ${r.problem}`,
      NotFlat: (r) => `${r.path} is ${r.looksLike}, not a flat binary: ${r.advice}`,
      HasAddress: (r) => `${r.path} is ${r.format}, which has its own address: leave --address out`
    })
  }
}
