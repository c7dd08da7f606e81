/**
 * Everything that can go wrong in the emulated CPU, as one error with a tagged reason.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { hex } from "../../domain/Address.ts"

/**
 * - `MissingFeature`: the JavaScript engine lacks something the CPU cannot run without.
 * - `WasmNotFound`: the installed `v86.wasm` could not be read.
 * - `WasmDigest`: the bytes are not those of the pinned `version` of v86; digests are SHA-256 in hexadecimal.
 * - `MemorySize`: guest RAM of this size cannot be had.
 * - `OutOfRange`: `[offset, offset + bytes)` is not wholly inside guest RAM, which has `available` bytes.
 * - `Misaligned`: a word's offset is no multiple of 4.
 * - `BadRegister`: a register holds what a 32-bit CPU cannot start from.
 * - `NotStopped`: the operation needs a CPU that is between two slices.
 * - `Shutdown`: the guest ran into something from which the CPU does not go on, such as a triple fault. `eip` is the
 *   linear address of the instruction, as far as it is known.
 * - `HandlerFailed`: a device handler or another callback threw; `during` names it.
 * - `Disposed`: the CPU was given back.
 *
 * @category errors
 * @since 0.1.0
 */
export const CpuErrorReason = Schema.TaggedUnion({
  MissingFeature: { feature: Schema.String },
  WasmNotFound: { problem: Schema.String },
  WasmDigest: { version: Schema.String, expected: Schema.String, actual: Schema.String },
  MemorySize: { bytes: Schema.Number, problem: Schema.String },
  OutOfRange: { offset: Schema.Number, bytes: Schema.Number, available: Schema.Number },
  Misaligned: { offset: Schema.Number },
  BadRegister: { register: Schema.String, problem: Schema.String },
  NotStopped: { operation: Schema.String },
  Shutdown: { cause: Schema.String, eip: Schema.Number },
  HandlerFailed: { during: Schema.String, defect: Schema.Defect() },
  Disposed: {}
})

/**
 * @category errors
 * @since 0.1.0
 */
export type CpuErrorReason = typeof CpuErrorReason.Type

/**
 * A failure of the emulated CPU. After `Shutdown` and `HandlerFailed` the CPU can only be disposed of; its memory and
 * registers can still be read. After the other reasons nothing has changed.
 *
 * @category errors
 * @since 0.1.0
 */
export class CpuError extends Schema.TaggedError<CpuError>()("CpuError", { reason: CpuErrorReason }) {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "MissingFeature":
        return `this JavaScript engine has no ${reason.feature}; use Node.js 24 or newer, or a current Chromium`
      case "WasmNotFound":
        return `build/v86.wasm of npm package v86 cannot be read: ${reason.problem}; ` +
          "install the package, or read the file yourself (in a browser: fetch it) and give the bytes"
      case "WasmDigest":
        return `the bytes given as v86.wasm have SHA-256 ${reason.actual}, but ${reason.expected} is expected; ` +
          `take build/v86.wasm of exactly version ${reason.version} of npm package v86`
      case "MemorySize":
        return `guest RAM of ${reason.bytes} bytes cannot be had: ${reason.problem}`
      case "OutOfRange":
        return `${reason.bytes} bytes at ${hex(reason.offset)} are not wholly inside guest RAM of ` +
          `${reason.available} bytes; guest RAM begins at guest address 0`
      case "Misaligned":
        return `a 32-bit word cannot be at ${hex(reason.offset)}; its address must be a multiple of 4`
      case "BadRegister":
        return `register ${reason.register} ${reason.problem}; nothing was set`
      case "NotStopped":
        return `${reason.operation} needs a stopped CPU, but a slice is running; wait for run() to settle`
      case "Shutdown":
        return `the guest shut its CPU down at linear address ${hex(reason.eip)}: ${reason.cause}; ` +
          "dispose of the CPU and make a new one"
      case "HandlerFailed":
        return `${reason.during} threw, which it must never do: ${String(reason.defect)}; ` +
          "mend the handler, dispose of the CPU and make a new one"
      case "Disposed":
        return "the CPU was disposed of; make a new one"
    }
  }
}
