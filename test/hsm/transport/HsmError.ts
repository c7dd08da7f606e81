/**
 * What keeps the bench from giving a result. How a program inside ended, even badly, is a result.
 */
import * as Schema from "effect/Schema"

/**
 * - `NotBuilt`: `file` of the built kernel and programs is not there.
 * - `NotBooted`: the kernel ended, or `seconds` went by, before it had found its hypervisor; `console` is what it said.
 * - `NoMemory`: the kernel's memory could not be mapped; `errno` is what the host's mmap or open answered.
 */
export const HsmErrorReason = Schema.TaggedUnion({
  NotBuilt: { file: Schema.String },
  NotBooted: { seconds: Schema.Number, problem: Schema.String, console: Schema.Array(Schema.String) },
  NoMemory: { file: Schema.String, errno: Schema.Number }
})

export class HsmError extends Schema.TaggedError<HsmError>()("HsmError", { reason: HsmErrorReason }) {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "NotBuilt":
        return `${reason.file} is not there; run npm run hsm:build, which takes minutes the first time`
      case "NotBooted":
        return [
          `the test kernel found no hypervisor within ${reason.seconds} s: ${reason.problem}; it said:`,
          ...reason.console.slice(-20)
        ].join("\n  ")
      case "NoMemory":
        return `the test kernel's memory ${reason.file} cannot be mapped (errno ${reason.errno}); ` +
          "run as the user that started the kernel, with room for its memory in /dev/shm or the temporary folder"
    }
  }
}
