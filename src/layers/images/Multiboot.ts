/**
 * Kernels with a Multiboot (version 1) header, such as the small systems that GRUB and QEMU start. Source: Multiboot
 * Specification 0.6.96.
 *
 * The kernel is loaded by the address fields of its header when that has them (bit 16 of its flags), else as the ELF
 * executable it is, 32-bit or 64-bit. It starts in 32-bit protected mode without paging, flat segments, interrupts off,
 * with 0x2BADB002 in EAX and the address of the information structure in EBX. That has the size of the memory and its
 * map (one block of RAM from address 0 with the usual holes of a PC's first MiB), the command line, the modules and the
 * loader's name; no boot device, symbols, drives or video. ESP points to 4 KiB that are free of all of this, although the
 * specification lets a kernel count on no stack.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { GuestAddress } from "../../domain/Address.ts"
import { ImagePlan, type ImageSegment } from "../../domain/ImagePlan.ts"
import { ADDRESS_SPACE_END, PAGE_BYTES } from "../../domain/Limits.ts"
import type { ImageError } from "./ImageError.ts"
import * as Header from "./internal/multibootHeader.ts"
import * as Information from "./internal/multibootInformation.ts"
import { checkFile, checkMemoryBytes } from "./internal/options.ts"
import { endOf, placeLow, REACH } from "./internal/placement.ts"
import { makeStart, spanOf } from "./internal/starts.ts"
import { encodeText } from "./internal/text.ts"
import type { ImageFile } from "./LinuxBzImage.ts"

/**
 * What EAX holds when the kernel starts, which tells it that a Multiboot loader did.
 *
 * @category constants
 * @since 0.1.0
 */
export const LOADER_MAGIC = 0x2bad_b002

/**
 * A file that the loader puts in memory for the kernel, on a page boundary. `commandLine` (default: its name) is the
 * text that the kernel gets with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Module extends ImageFile {
  readonly commandLine?: string | undefined
}

/**
 * `commandLine`: by custom its first word is the kernel's name; it is given as it stands (default: empty). `modules`:
 * files for the kernel, in this order above it. `memoryBytes`: the VM's RAM from address 0, a multiple of 4096.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly kernel: ImageFile
  readonly commandLine?: string | undefined
  readonly modules?: ReadonlyArray<Module> | undefined
  readonly memoryBytes: number
}

/**
 * Tells whether bytes have a Multiboot header with the right checksum in their first 8 KiB.
 *
 * @category guards
 * @since 0.1.0
 */
export const isMultiboot: (bytes: Uint8Array) => boolean = Header.isMultiboot

const make = (options: Options): Result.Result<ImagePlan, ImageError> =>
  Result.gen(function*() {
    const { commandLine = "", kernel, modules = [] } = options
    const file = kernel.name
    const memoryBytes = yield* checkMemoryBytes(options.memoryBytes, ADDRESS_SPACE_END)
    yield* checkFile(file, kernel.bytes)
    const reach = Math.min(memoryBytes, REACH)
    const { entry, segments: kernelSegments } = yield* Header.parse(file, kernel.bytes, reach)

    const segments: Array<ImageSegment> = [...kernelSegments]
    const placed: Array<Information.Information["modules"][number]> = []
    for (const module of modules) {
      yield* checkFile(module.name, module.bytes)
      const bytes = module.bytes.length
      const taken = segments.map(spanOf)
      const room = { file: module.name, what: "the module, above the kernel and on a page boundary,", bytes }
      const start = yield* placeLow(taken, { ...room, align: PAGE_BYTES, from: endOf(taken), to: reach })
      segments.push({ name: module.name, address: GuestAddress.make(start), bytes: module.bytes })
      placed.push({ start, end: start + bytes, text: yield* encodeText(module.commandLine ?? module.name) })
    }

    const information: Information.Information = {
      memoryBytes,
      commandLine: yield* encodeText(commandLine),
      loaderName: yield* encodeText("Upcall"),
      modules: placed
    }
    const address = yield* placeLow(segments.map(spanOf), {
      file,
      what: "the Multiboot information with its texts",
      bytes: Information.sizeOf(information),
      align: 16,
      to: reach
    })
    segments.push({
      name: "Multiboot information",
      address: GuestAddress.make(address),
      bytes: Information.encode(information, address)
    })
    const started = yield* makeStart({
      file,
      mode: "Protected32",
      segments,
      entry,
      stack: undefined,
      gprs: { rax: BigInt(LOADER_MAGIC), rbx: BigInt(address) },
      reach
    })
    return ImagePlan.make({ memoryBytes, ...started })
  })

/**
 * Plans a Multiboot guest. Fails with an `ImageError` when the kernel has no Multiboot header with a right checksum, when
 * it asks for a video mode or for something unknown, when it is cut off, and when kernel, modules or texts do not fit the
 * memory below 4 GiB.
 *
 * **Example** (A kernel of one instruction, without ELF)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Multiboot from "upcall/layers/images/Multiboot"
 *
 * const magic = 0x1bad_b002
 * const flags = 1 << 16 // the header has addresses
 * const header = [magic, flags, -(magic + flags), 0x10_0000, 0x10_0000, 0, 0, 0x10_0020]
 * const kernel = { name: "tiny", bytes: new Uint8Array([...new Uint8Array(Uint32Array.from(header).buffer), 0xf4]) }
 *
 * const plan = await Effect.runPromise(Multiboot.plan({ kernel, commandLine: "tiny debug", memoryBytes: 2 * 1024 * 1024 }))
 * for (const { address, bytes, name } of plan.segments) console.log(name, address.toString(16), bytes.length)
 * console.log(plan.registers.rip.toString(16), plan.registers.gprs.rax.toString(16))
 * // => tiny 100000 33
 * // => Multiboot information 1000 230
 * // => 100020 2badb002
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const plan = (options: Options): Effect.Effect<ImagePlan, ImageError> =>
  Effect.suspend(() => Effect.fromResult(make(options)))
