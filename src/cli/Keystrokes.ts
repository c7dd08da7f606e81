/**
 * Text to type, as it is written on a command line, where keys such as Enter have no character of their own.
 */
import * as Result from "effect/Result"

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", "\\": "\\" }

/** Replaces `\n`, `\r`, `\t`, `\\` and `\xHH` as C does. The failure says what is expected. */
export const parse = (text: string): Result.Result<string, string> => {
  let typed = ""
  for (const [part] of text.matchAll(/\\x[0-9a-f]{2}|\\.|\\$|[^\\]+/gis)) {
    if (!part.startsWith("\\")) typed += part
    else if (part.length === 4) typed += String.fromCharCode(Number.parseInt(part.slice(2), 16))
    else if (part[1] !== undefined && ESCAPES[part[1]] !== undefined) typed += ESCAPES[part[1]]
    else return Result.fail("text in which a backslash is followed by n, r, t, xHH or another backslash")
  }
  return Result.succeed(typed)
}
