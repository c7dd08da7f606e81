/**
 * Images without a format: bytes that go to one guest physical address and are run in 32-bit protected mode, paging off,
 * flat segments (CS 0x08, the others 0x10), interrupts off. No descriptor table is put in memory: a guest that takes
 * interrupts loads its own first.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { GuestAddress } from "../../domain/Address.ts"
import { ImagePlan } from "../../domain/ImagePlan.ts"
import { ADDRESS_SPACE_END, PAGE_BYTES } from "../../domain/Limits.ts"
import * as VcpuRegisters from "../../domain/VcpuRegisters.ts"
import type { ImageError } from "./ImageError.ts"
import { checkFile, checkMemoryBytes, fail } from "./internal/options.ts"

/**
 * The bytes below the default stack pointer that are free of the image.
 *
 * @category constants
 * @since 0.1.0
 */
export const STACK_BYTES = 4096

/**
 * `address`: where the first byte goes. `entry`: the first instruction, inside the image (default: `address`). `stack`:
 * the first value of ESP, a multiple of 4 (default: the end of the memory, or the image's start if the image is in the
 * way). `memoryBytes`: the VM's RAM from address 0, a multiple of 4096. `name`: how messages call the image. All
 * addresses are guest physical, all sizes in bytes.
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
  readonly memoryBytes: number
}

// 32-bit code reaches no further, however much memory there is.
const REACH = 2 ** 32

const multipleOf = (step: number, value: number): number => Math.floor(value / step) * step

const chooseStack = (options: Options, name: string, reach: number): Result.Result<number, ImageError> => {
  const end = options.address + options.bytes.length
  // ESP has 32 bits, so it cannot hold the end of 4 GiB itself.
  const top = Math.min(reach, REACH - 16)
  if (options.stack !== undefined) {
    const { stack } = options
    return Number.isInteger(stack) && stack >= 4 && stack <= top && stack % 4 === 0 ? Result.succeed(stack) : fail({
      _tag: "BadOption",
      option: "stack",
      expected: `a multiple of 4 from 4 to ${top}`,
      found: String(stack)
    })
  }
  if (top - end >= STACK_BYTES) {
    return Result.succeed(top)
  }
  const below = multipleOf(16, options.address)
  return below >= STACK_BYTES ? Result.succeed(below) : fail({
    _tag: "DoesNotFit",
    file: name,
    what: "a stack beside the image",
    bytes: STACK_BYTES,
    from: Math.min(end, top),
    to: top,
    needed: Math.ceil((end + STACK_BYTES) / PAGE_BYTES) * PAGE_BYTES
  })
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
      const needed = Math.ceil(end / PAGE_BYTES) * PAGE_BYTES
      return yield* fail({
        _tag: "DoesNotFit",
        file: name,
        what: "the image",
        bytes: bytes.length,
        from: address,
        to: reach,
        needed: needed <= REACH ? needed : 0
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
    const stack = yield* chooseStack(options, name, reach)
    return ImagePlan.make({
      memoryBytes,
      segments: [{ name, address: GuestAddress.make(address), bytes }],
      registers: VcpuRegisters.flat32({ entry, stack, selectors: { code: 0x08, data: 0x10 } })
    })
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
