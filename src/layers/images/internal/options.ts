/**
 * What every loader asks of its options, whatever the image.
 */
import * as Result from "effect/Result"
import { PAGE_BYTES } from "../../../domain/Limits.ts"
import { ImageError, type ImageErrorReason } from "../ImageError.ts"

export const fail = (reason: ImageErrorReason): Result.Result<never, ImageError> =>
  Result.fail(new ImageError({ reason }))

export const checkMemoryBytes = (memoryBytes: number, maximum: number): Result.Result<number, ImageError> =>
  Number.isSafeInteger(memoryBytes) && memoryBytes >= PAGE_BYTES && memoryBytes <= maximum &&
    memoryBytes % PAGE_BYTES === 0
    ? Result.succeed(memoryBytes)
    : fail({
      _tag: "BadOption",
      option: "memoryBytes",
      expected: `a multiple of ${PAGE_BYTES} from ${PAGE_BYTES} to ${maximum}`,
      found: String(memoryBytes)
    })

export const checkFile = (name: string, bytes: Uint8Array): Result.Result<Uint8Array, ImageError> =>
  bytes.length > 0 ? Result.succeed(bytes) : fail({ _tag: "EmptyFile", file: name })
