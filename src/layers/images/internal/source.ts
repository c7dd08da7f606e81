/**
 * A file that is being read, and the ways of saying what is wrong with it.
 */
import * as Result from "effect/Result"
import type * as Layout from "../../../domain/abi/Layout.ts"
import type { ImageError } from "../ImageError.ts"
import { fileKind } from "./fileKind.ts"
import { fail } from "./options.ts"

/** What to do about a value that no working tool writes. */
export const damaged = "the file is damaged: get it again"

export class Source {
  readonly name: string
  readonly bytes: Uint8Array
  constructor(name: string, bytes: Uint8Array) {
    this.name = name
    this.bytes = bytes
  }

  /** `advice` is for a file of no known kind, and for one of a kind that `fileKind` has none for. */
  wrongFormat(offset: number, expected: string, found: string, advice: string): Result.Result<never, ImageError> {
    const kind = fileKind(this.bytes)
    return fail({
      _tag: "WrongFormat",
      file: this.name,
      offset,
      expected,
      found,
      looksLike: kind?.looksLike ?? "",
      advice: kind?.isForAll === true ? kind.advice : advice
    })
  }

  unsupported(
    field: string,
    offset: number,
    expected: string,
    found: string,
    advice: string
  ): Result.Result<never, ImageError> {
    return fail({ _tag: "Unsupported", file: this.name, field, offset, expected, found, advice })
  }

  truncated(part: string, expected: number): Result.Result<never, ImageError> {
    return fail({ _tag: "Truncated", file: this.name, part, expected, found: this.bytes.length })
  }

  decode<F extends Layout.Fields>(
    layout: Layout.Layout<F>,
    part: string,
    at = 0
  ): Result.Result<Layout.ValueOf<F>, ImageError> {
    return Result.orElse(layout.decode(this.bytes, at), () => this.truncated(part, at + layout.size))
  }
}
