/**
 * The C library for a layer that needs Linux on x86-64.
 */
import * as Effect from "effect/Effect"
import process from "node:process"
import { type Libc, loadLibc } from "./Libc.ts"

/** Why there is none here; part of each such layer's own reasons. */
export type Unloadable =
  | { readonly _tag: "WrongPlatform"; readonly platform: string }
  | { readonly _tag: "NoFfi"; readonly problem: string }

/** Nothing is asked of koffi on a machine where there can be no such device. */
export const load: Effect.Effect<Libc, Unloadable> = Effect.suspend(() =>
  process.platform !== "linux" || process.arch !== "x64"
    ? Effect.fail<Unloadable>({ _tag: "WrongPlatform", platform: `${process.platform} on ${process.arch}` })
    : Effect.tryPromise({
      try: loadLibc,
      catch: (cause): Unloadable => ({ _tag: "NoFfi", problem: String(cause) })
    })
)
