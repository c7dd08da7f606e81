/**
 * ELF executables for x86: the segments go to their physical (load) addresses, what the file leaves out of them (.bss)
 * is zero, and vCPU 0 starts at the entry point. A 64-bit file starts in 64-bit mode, the first 4 GiB mapped to
 * themselves; a 32-bit file starts in 32-bit protected mode without paging. Both are as `FlatBinary` describes them.
 * Source: System V ABI, and its supplements for i386 and x86-64.
 *
 * The entry point is taken to the physical address that its segment is loaded at. A program that was linked to run
 * elsewhere (a kernel in the upper half) so begins at its load address, in code that must not depend on where it runs.
 *
 * Programs that need a dynamic linker or a relocation are refused. Notes are not read: a kernel that also has a PVH entry
 * point (`XEN_ELFNOTE_PHYS32_ENTRY`) is started at its ELF entry point. A kernel with a Multiboot header wants `Multiboot`,
 * a Linux kernel `LinuxBzImage`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { ImagePlan } from "../../domain/ImagePlan.ts"
import { ADDRESS_SPACE_END } from "../../domain/Limits.ts"
import type { ImageError } from "./ImageError.ts"
import * as ElfFile from "./internal/elf.ts"
import { checkFile, checkMemoryBytes } from "./internal/options.ts"
import { REACH } from "./internal/placement.ts"
import { makeStart } from "./internal/starts.ts"

/**
 * `stack`: the first value of the stack pointer, a multiple of 4 (default: the highest that has 4 KiB free below).
 * `memoryBytes`: the VM's RAM from address 0, a multiple of 4096. `name`: how messages call the file.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly bytes: Uint8Array
  readonly stack?: number | undefined
  readonly memoryBytes: number
}

/**
 * Tells whether bytes begin as an ELF file does, whatever it is for.
 *
 * @category guards
 * @since 0.1.0
 */
export const isElf: (bytes: Uint8Array) => boolean = ElfFile.isElf

const make = (options: Options): Result.Result<ImagePlan, ImageError> =>
  Result.gen(function*() {
    const { bytes, name = "ELF file", stack } = options
    const memoryBytes = yield* checkMemoryBytes(options.memoryBytes, ADDRESS_SPACE_END)
    yield* checkFile(name, bytes)
    const reach = Math.min(memoryBytes, REACH)
    const { bits, entry, segments } = yield* ElfFile.parse(name, bytes, reach)
    const mode = bits === 64 ? "Long64" : "Protected32"
    return ImagePlan.make({
      memoryBytes,
      ...yield* makeStart({ file: name, mode, segments, entry, stack, reach })
    })
  })

/**
 * Plans a static executable. Fails with an `ImageError` when the bytes are no ELF executable for x86, when it is cut
 * off, dynamic or position-independent, when its segments overlap or do not fit the memory below 4 GiB, and when there
 * is no room beside them for a stack and, in 64-bit mode, 24 KiB of page tables.
 *
 * **Example** (A program of one instruction)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Elf from "upcall/layers/images/Elf"
 *
 * const file = new Uint8Array(0x79)
 * const words = new BigUint64Array(file.buffer, 0, 15)
 * words.set([0x00010102464c457fn, 0n, 0x1_003e_0002n, 0x10_0078n, 0x40n, 0n, 0x38_0040_0000_0000n, 1n]) // header
 * words.set([0x5_0000_0001n, 0n, 0x10_0000n, 0x10_0000n, 0x79n, 0x2000n, 0x1000n], 8) // one segment
 * file[0x78] = 0xf4 // hlt
 *
 * const plan = await Effect.runPromise(Elf.plan({ bytes: file, memoryBytes: 4 * 1024 * 1024 }))
 * for (const { address, bytes, name, zeroBytes = 0 } of plan.segments) {
 *   console.log(name, address.toString(16), bytes.length, zeroBytes)
 * }
 * console.log(plan.registers.rip.toString(16))
 * // => ELF file segment 0 100000 121 8071
 * // => page tables 1000 24576 0
 * // => GDT 7000 32 0
 * // => 100078
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const plan = (options: Options): Effect.Effect<ImagePlan, ImageError> =>
  Effect.suspend(() => Effect.fromResult(make(options)))
