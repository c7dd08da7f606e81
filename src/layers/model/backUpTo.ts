/**
 * Memory up to what a layer's profile promises; more is refused before any is taken.
 */
import * as Result from "effect/Result"
import { type MemoryPurpose, ServiceMemoryError } from "../../services/ServiceMemory.ts"

export const backUpTo =
  <B>(available: number, back: (bytes: number, purpose: MemoryPurpose) => B) =>
  (bytes: number, purpose: MemoryPurpose): Result.Result<B, ServiceMemoryError> =>
    bytes > available
      ? Result.fail(new ServiceMemoryError({ reason: { _tag: "NoMemory", bytes, available } }))
      : Result.succeed(back(bytes, purpose))
