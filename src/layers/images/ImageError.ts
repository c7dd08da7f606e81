/**
 * Why an image was refused. Nothing was written anywhere when one of these comes.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { hex } from "../../domain/Address.ts"

/**
 * - `EmptyFile`: no bytes at all.
 * - `WrongFormat`: at `offset` of `file` something else was `found` than the format has there; `looksLike` is what the
 *   file seems to be, or empty; `advice` is what to give instead.
 * - `Truncated`: `file` ends after `found` bytes, but its header says that `part` ends at byte `expected`.
 * - `Unsupported`: the field `field` at `offset` of `file` has a value that this loader cannot serve.
 * - `DoesNotFit`: `bytes` bytes of `what`, which belongs to `file`, have no place in guest physical addresses `from` to
 *   `to`, the latter exclusive. `needed` is the number of bytes of RAM that would do, or 0 if more RAM does not help.
 * - `SegmentsOverlap`: two parts that `file` wants in memory, `first` and `second`, share guest physical addresses `from`
 *   to `to`, the latter exclusive.
 * - `CommandLineTooLong`: `found` bytes in UTF-8 without the zero byte, where the kernel takes at most `expected`.
 * - `CommandLineHasNul`: a zero character at `offset` (in UTF-16 units, as JavaScript counts) would cut it short.
 * - `BadOption`: the caller's own `option` makes no sense.
 *
 * Offsets and sizes are in bytes.
 *
 * @category errors
 * @since 0.1.0
 */
export const ImageErrorReason = Schema.TaggedUnion({
  EmptyFile: { file: Schema.String },
  WrongFormat: {
    file: Schema.String,
    offset: Schema.Number,
    expected: Schema.String,
    found: Schema.String,
    looksLike: Schema.String,
    advice: Schema.String
  },
  Truncated: { file: Schema.String, part: Schema.String, expected: Schema.Number, found: Schema.Number },
  Unsupported: {
    file: Schema.String,
    field: Schema.String,
    offset: Schema.Number,
    expected: Schema.String,
    found: Schema.String,
    advice: Schema.String
  },
  DoesNotFit: {
    file: Schema.String,
    what: Schema.String,
    bytes: Schema.Number,
    from: Schema.Number,
    to: Schema.Number,
    needed: Schema.Number
  },
  SegmentsOverlap: {
    file: Schema.String,
    first: Schema.String,
    second: Schema.String,
    from: Schema.Number,
    to: Schema.Number
  },
  CommandLineTooLong: { file: Schema.String, expected: Schema.Number, found: Schema.Number },
  CommandLineHasNul: { offset: Schema.Number },
  BadOption: { option: Schema.String, expected: Schema.String, found: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type ImageErrorReason = typeof ImageErrorReason.Type

/**
 * An image, or what was asked of its loader, that makes no plan.
 *
 * @category errors
 * @since 0.1.0
 */
export class ImageError extends Schema.TaggedError<ImageError>()("ImageError", { reason: ImageErrorReason }) {
  override get message(): string {
    return ImageErrorReason.match(this.reason, {
      EmptyFile: (r) => `${r.file} is empty; see that it was read or downloaded whole`,
      WrongFormat: (r) =>
        `${r.file}: expected ${r.expected} at offset ${hex(r.offset)}, found ${r.found}` +
        `${r.looksLike === "" ? "" : `; it looks like ${r.looksLike}`}; ${r.advice}`,
      Truncated: (r) =>
        `${r.file} ends after ${r.found} bytes, but by its header ${r.part} ends at byte ${r.expected}; ` +
        "get the whole file again",
      Unsupported: (r) =>
        `${r.file}: ${r.field} at offset ${hex(r.offset)} is ${r.found}, expected ${r.expected}; ${r.advice}`,
      DoesNotFit: (r) =>
        `${r.file}: ${r.what} needs ${r.bytes} bytes in guest memory from ${hex(r.from)} ` +
        (r.from < r.to
          ? `up to ${hex(r.to)}, where only ${r.to - r.from} are; `
          : `on, but must end by ${hex(r.to)}; `) +
        (r.needed === 0 ? "use a smaller one" : `give the VM at least ${r.needed} bytes of memory, or a smaller image`),
      SegmentsOverlap: (r) =>
        `${r.file}: ${r.first} and ${r.second} both want guest memory ${hex(r.from)} to ${hex(r.to - 1)}; ` +
        "link it so that its segments have load addresses of their own",
      CommandLineTooLong: (r) =>
        `the command line has ${r.found} bytes, but ${r.file} takes at most ${r.expected}; shorten it`,
      CommandLineHasNul: (r) =>
        `the command line has a zero character at ${r.offset}, where the kernel would stop reading; remove it`,
      BadOption: (r) => `${r.option} is ${r.found}; pass ${r.expected}`
    })
  }
}
