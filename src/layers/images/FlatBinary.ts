/**
 * Images without a format: bytes that go to one guest physical address and are run there, in one of two modes, with
 * interrupts off.
 *
 * - `Protected32`: 32-bit protected mode, paging off, flat segments (CS 0x08, the others 0x10). No descriptor table is
 *   put in memory: a guest that takes interrupts loads its own first.
 * - `Long64`: 64-bit mode; the first 4 GiB of addresses, RAM or not, are mapped to themselves, writable, by page tables
 *   that are put beside the image with a descriptor table (CS 0x10, the others 0x18). CR3 and GDTR tell where.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { GuestAddress } from "../../domain/Address.ts"
import { ImagePlan } from "../../domain/ImagePlan.ts"
import { ADDRESS_SPACE_END } from "../../domain/Limits.ts"
import type { ImageError } from "./ImageError.ts"
import { checkFile, checkMemoryBytes, fail } from "./internal/options.ts"
import { REACH, reachable, STACK_BYTES as FREE_BELOW_STACK } from "./internal/placement.ts"
import { makeStart } from "./internal/starts.ts"

/**
 * The bytes below the default stack pointer that are free of the image.
 *
 * @category constants
 * @since 0.1.0
 */
export const STACK_BYTES = FREE_BELOW_STACK

/**
 * `address`: where the first byte goes. `entry`: the first instruction, inside the image (default: `address`). `stack`:
 * the first value of ESP, a multiple of 4 (default: the end of the memory, or the image's start if the image is in the
 * way). `mode`: how it is started (default `Protected32`). `memoryBytes`: the VM's RAM from address 0, a multiple of 4096.
 * `name`: how messages call the image. All addresses are guest physical, all sizes in bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly bytes: Uint8Array
  readonly address: number
  readonly entry?: number | undefined
  readonly stack?: number | undefined
  readonly mode?: "Protected32" | "Long64" | undefined
  readonly memoryBytes: number
}

const make = (options: Options): Result.Result<ImagePlan, ImageError> =>
  Result.gen(function*() {
    const { address, bytes, entry = address, name = "flat binary" } = options
    const memoryBytes = yield* checkMemoryBytes(options.memoryBytes, ADDRESS_SPACE_END)
    const reach = Math.min(memoryBytes, REACH)
    yield* checkFile(name, bytes)
    if (!Number.isInteger(address) || address < 0 || address >= REACH) {
      return yield* fail({
        _tag: "BadOption",
        option: "address",
        expected: "an integer from 0 to 0xffffffff",
        found: String(address)
      })
    }
    const end = address + bytes.length
    if (end > reach) {
      return yield* fail({
        _tag: "DoesNotFit",
        file: name,
        what: "the image",
        bytes: bytes.length,
        from: address,
        to: reach,
        needed: reachable(end)
      })
    }
    if (!Number.isInteger(entry) || entry < address || entry >= end) {
      return yield* fail({
        _tag: "BadOption",
        option: "entry",
        expected: `an address inside the image, ${address} to ${end - 1}`,
        found: String(entry)
      })
    }
    const started = yield* makeStart({
      file: name,
      mode: options.mode ?? "Protected32",
      segments: [{ name, address: GuestAddress.make(address), bytes }],
      entry,
      stack: options.stack,
      reach
    })
    return ImagePlan.make({ memoryBytes, ...started })
  })

/**
 * Plans a flat binary. Fails with an `ImageError` when it is empty, when it (or a stack beside it) does not fit the
 * memory, and when an address makes no sense.
 *
 * **Example** (The guest of guests/hello in 1 MiB)
 *
 * ```ts
 * import * as FlatBinary from "upcall/layers/images/FlatBinary"
 *
 * const plan = FlatBinary.plan({ name: "hello.bin", bytes, address: 0x1000, memoryBytes: 1024 * 1024 })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const plan = (options: Options): Effect.Effect<ImagePlan, ImageError> =>
  Effect.suspend(() => Effect.fromResult(make(options)))
