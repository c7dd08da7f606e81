/**
 * Which build of the v86 CPU core is meant, and the proof that some bytes are that build.
 *
 * The core keeps the CPU's state at fixed addresses of its memory (`CpuOffsets.ts`), and these have moved between
 * builds. Any other build would run and be silently wrong, so bytes are believed by digest and not by name.
 *
 * @since 0.1.0
 */
import { CpuError } from "./CpuError.ts"

/**
 * The version of npm package `v86` whose `build/v86.wasm` is used.
 *
 * @category constants
 * @since 0.1.0
 */
const V86_VERSION = "0.5.462"

/**
 * SHA-256 of that file, in lower-case hexadecimal.
 *
 * @category constants
 * @since 0.1.0
 */
export const V86_SHA256 = "aa0d0e149d6b60063b85de4871e78505637ce92821e14a9f9802c4008ba2336e"

interface Digests {
  readonly digest: (algorithm: "SHA-256", bytes: Uint8Array<ArrayBuffer>) => Promise<ArrayBuffer>
}

/**
 * Gives back a private copy of `bytes` when they are the pinned build. Rejects with a `CpuError` of reason `WasmDigest`
 * when they are not, and `MissingFeature` where there is no Web Crypto (a page that is no secure context).
 *
 * @category guards
 * @since 0.1.0
 */
export const verify = async (bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => {
  const subtle = (globalThis as { readonly crypto?: { readonly subtle?: Digests } }).crypto?.subtle
  if (subtle === undefined) {
    throw new CpuError({ reason: { _tag: "MissingFeature", feature: "Web Crypto (crypto.subtle)" } })
  }
  // The copy is what is checked and what is used: nobody can change the bytes in between.
  const copy = new Uint8Array(bytes)
  const digest = new Uint8Array(await subtle.digest("SHA-256", copy))
  const actual = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("")
  if (actual !== V86_SHA256) {
    throw new CpuError({ reason: { _tag: "WasmDigest", version: V86_VERSION, expected: V86_SHA256, actual } })
  }
  return copy
}
