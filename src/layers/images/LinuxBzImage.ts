/**
 * Linux kernels for x86 (bzImage, a distribution's `/boot/vmlinuz`), started by the 32-bit boot protocol: without a BIOS
 * and without the kernel's real-mode part. Source: Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol".
 *
 * The kernel gets a memory map of one block of RAM from address 0 with the usual holes of a PC's first MiB, no video and
 * no ACPI tables. On its command line, `console=ttyS0` lets it print to a 16550 at port 0x3F8, and `reboot=k`
 * makes a restart a request to `ResetControl`, which ends the VM (`reboot=t` a triple fault, which ends it as a
 * shutdown).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { GuestAddress } from "../../domain/Address.ts"
import { ImagePlan, type ImageSegment } from "../../domain/ImagePlan.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import * as VcpuRegisters from "../../domain/VcpuRegisters.ts"
import type { ImageError } from "./ImageError.ts"
import * as BootParameters from "./internal/bootParameters.ts"
import { checkFile, checkMemoryBytes, fail } from "./internal/options.ts"
import { alignDown, pageUp } from "./internal/placement.ts"
import { LOAD_ADDRESS, parse, type SetupHeader } from "./internal/setupHeader.ts"
import { encodeText } from "./internal/text.ts"

/**
 * Where a plan puts things, as guest physical addresses. The initrd, if any, goes as high as the kernel takes it.
 *
 * @category constants
 * @since 0.1.0
 */
export const addresses = {
  /** The first value of ESP: the stack grows down from here. */
  stack: 0x6000,
  /** Four descriptors: two null ones, flat code (selector 0x10), flat data (selector 0x18). */
  gdt: 0x6000,
  /** `struct boot_params`, one page. ESI points to it. */
  zeroPage: 0x7000,
  /** The command line, ended by a zero byte; 64 KiB are kept for it. */
  commandLine: 0x2_0000,
  /** The protected-mode kernel; its first byte is the entry point. */
  kernel: LOAD_ADDRESS
} as const

/**
 * The most RAM a plan can be for, in bytes: it is one block from address 0, and above 3 GiB a PC has its devices.
 *
 * @category constants
 * @since 0.1.0
 */
export const MAX_MEMORY_BYTES = 0xc000_0000

/**
 * A file: `name` is how messages call it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ImageFile {
  readonly name: string
  readonly bytes: Uint8Array
}

/**
 * `memoryBytes`: the VM's RAM, a multiple of 4096, at most `MAX_MEMORY_BYTES`. `longMode`: whether the vCPU runs 64-bit
 * code (default true); without it a 64-bit kernel is refused here, where it would otherwise stop without a word.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly kernel: ImageFile
  readonly initrd?: ImageFile | undefined
  readonly commandLine: string
  readonly memoryBytes: number
  readonly longMode?: boolean | undefined
}

const COMMAND_LINE_ROOM = 0x1_0000

const descriptors = [0n, 0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]

const gdt = (): Uint8Array => {
  const view = new DataView(new ArrayBuffer(descriptors.length * 8))
  descriptors.forEach((descriptor, index) => view.setBigUint64(index * 8, descriptor, true))
  return new Uint8Array(view.buffer)
}

const encodeCommandLine = (options: Options, header: SetupHeader): Result.Result<Uint8Array, ImageError> =>
  Result.flatMap(encodeText(options.commandLine), (bytes) => {
    const limit = Math.min(header.commandLineLimit, COMMAND_LINE_ROOM - 1)
    return bytes.length - 1 <= limit ? Result.succeed(bytes) : fail({
      _tag: "CommandLineTooLong",
      file: options.kernel.name,
      expected: limit,
      found: bytes.length - 1
    })
  })

// One past the highest address that the kernel needs for itself, as loaded or as unpacked.
const placeKernel = (options: Options, header: SetupHeader): Result.Result<number, ImageError> => {
  const loadedEnd = LOAD_ADDRESS + options.kernel.bytes.length - header.kernelOffset
  const places = [
    { what: "the kernel as loaded", start: LOAD_ADDRESS, end: loadedEnd },
    { what: "the kernel as unpacked (pref_address, init_size)", ...header.unpacked }
  ]
  const outside = places.find(({ end }) => end > options.memoryBytes)
  const end = Math.max(...places.map((place) => place.end))
  return outside === undefined ? Result.succeed(end) : fail({
    _tag: "DoesNotFit",
    file: options.kernel.name,
    what: outside.what,
    bytes: outside.end - outside.start,
    from: outside.start,
    to: options.memoryBytes,
    needed: pageUp(end) <= MAX_MEMORY_BYTES ? pageUp(end) : 0
  })
}

// As high as it may be, so that the kernel has the memory below it in one piece.
const placeInitrd = (
  options: Options,
  header: SetupHeader,
  initrd: ImageFile,
  kernelEnd: number
): Result.Result<number, ImageError> => {
  const from = pageUp(kernelEnd)
  const to = Math.min(options.memoryBytes, header.initrdMaximum + 1)
  const address = alignDown(PAGE_BYTES, to - initrd.bytes.length)
  if (address >= from) {
    return Result.succeed(address)
  }
  const needed = from + pageUp(initrd.bytes.length)
  const helps = needed <= Math.min(MAX_MEMORY_BYTES, header.initrdMaximum + 1)
  return fail({
    _tag: "DoesNotFit",
    file: initrd.name,
    what: "the initrd, above the kernel and on a page boundary,",
    bytes: initrd.bytes.length,
    from,
    to,
    needed: helps ? needed : 0
  })
}

const segment = (name: string, address: number, bytes: Uint8Array): ImageSegment => ({
  name,
  address: GuestAddress.make(address),
  bytes
})

const make = (options: Options): Result.Result<ImagePlan, ImageError> =>
  Result.gen(function*() {
    const { initrd, kernel } = options
    const memoryBytes = yield* checkMemoryBytes(options.memoryBytes, MAX_MEMORY_BYTES)
    yield* checkFile(kernel.name, kernel.bytes)
    const header = yield* parse(kernel.name, kernel.bytes, options.longMode ?? true)
    const commandLine = yield* encodeCommandLine(options, header)
    const kernelEnd = yield* placeKernel(options, header)
    const initrdSegments: Array<ImageSegment> = []
    if (initrd !== undefined) {
      yield* checkFile(initrd.name, initrd.bytes)
      const address = yield* placeInitrd(options, header, initrd, kernelEnd)
      initrdSegments.push(segment(initrd.name, address, initrd.bytes))
    }
    const zeroPage = BootParameters.encode({
      header,
      loadAddress: addresses.kernel,
      commandLineAddress: addresses.commandLine,
      initrd: initrdSegments[0] && { address: initrdSegments[0].address, bytes: initrdSegments[0].bytes.length },
      memoryBytes
    })
    return ImagePlan.make({
      memoryBytes,
      segments: [
        segment("GDT", addresses.gdt, gdt()),
        segment("zero page", addresses.zeroPage, zeroPage),
        segment("command line", addresses.commandLine, commandLine),
        segment(kernel.name, addresses.kernel, kernel.bytes.subarray(header.kernelOffset)),
        ...initrdSegments
      ],
      // EBP, EDI and EBX are to be zero, and are.
      registers: VcpuRegisters.flat32({
        entry: addresses.kernel,
        stack: addresses.stack,
        selectors: { code: 0x10, data: 0x18 },
        gprs: { rsi: BigInt(addresses.zeroPage) },
        gdt: { base: BigInt(addresses.gdt), limit: descriptors.length * 8 - 1 }
      })
    })
  })

/**
 * Plans a Linux guest. Fails with an `ImageError` when the kernel is no bzImage of boot protocol 2.03 or later (a
 * `vmlinux`, an archive, a zImage), when a file is empty or cut off, when kernel or initrd do not fit the memory, and
 * when the command line is too long or has a zero character in it.
 *
 * **Example** (A kernel with an initrd in 128 MiB)
 *
 * ```ts
 * import * as LinuxBzImage from "upcall/layers/images/LinuxBzImage"
 *
 * const plan = LinuxBzImage.plan({
 *   kernel: { name: "vmlinuz", bytes: kernel },
 *   initrd: { name: "initrd.cpio", bytes: initrd },
 *   commandLine: "console=ttyS0 reboot=k",
 *   memoryBytes: 128 * 1024 * 1024
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const plan = (options: Options): Effect.Effect<ImagePlan, ImageError> =>
  Effect.suspend(() => Effect.fromResult(make(options)))
