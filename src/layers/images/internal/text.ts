/**
 * Text for guests: UTF-8, ended by a zero byte.
 */
import * as Result from "effect/Result"
import type { ImageError } from "../ImageError.ts"
import { fail } from "./options.ts"

// Every runtime has it; the compiler's library without the DOM does not know it.
declare const TextEncoder: new() => { readonly encode: (text: string) => Uint8Array }

export const encodeText = (text: string): Result.Result<Uint8Array, ImageError> => {
  const nul = text.indexOf("\0")
  return nul < 0
    ? Result.succeed(new TextEncoder().encode(`${text}\0`))
    : fail({ _tag: "CommandLineHasNul", offset: nul })
}
