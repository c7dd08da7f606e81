/**
 * The header of a bzImage, read and checked. Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel
 * Header" and "Details of Header Fields"; names are those of the document.
 */
import * as Result from "effect/Result"
import { hex } from "../../../domain/Address.ts"
import type { ImageError } from "../ImageError.ts"
import { fileKind } from "./fileKind.ts"
import { fail } from "./options.ts"

/** Offsets in the file, which are those in the zero page too. */
export const offsets = {
  setup_sects: 0x1f1,
  syssize: 0x1f4,
  boot_flag: 0x1fe,
  jump: 0x200,
  header: 0x202,
  version: 0x206,
  type_of_loader: 0x210,
  loadflags: 0x211,
  code32_start: 0x214,
  ramdisk_image: 0x218,
  ramdisk_size: 0x21c,
  heap_end_ptr: 0x224,
  cmd_line_ptr: 0x228,
  initrd_addr_max: 0x22c,
  kernel_alignment: 0x230,
  relocatable_kernel: 0x234,
  xloadflags: 0x236,
  cmdline_size: 0x238,
  payload_offset: 0x248,
  payload_length: 0x24c,
  pref_address: 0x258,
  init_size: 0x260
} as const

/** Where a kernel that is loaded high is put, and where its 32-bit entry point is. */
export const LOAD_ADDRESS = 0x10_0000

/** The zero page has other fields from here on. */
const HEADER_ROOM_END = 0x290

const BOOT_FLAG = 0xaa55
const MAGIC = 0x5372_6448 // "HdrS"
const LOADED_HIGH = 0x01
const XLF_KERNEL_64 = 0x01
const SECTOR_BYTES = 512
const OLDEST_VERSION = 0x203

export interface SetupHeader {
  /** Our own copy of the file's first bytes: what was checked is what is used. */
  readonly bytes: Uint8Array
  /** One past the header's last byte. */
  readonly end: number
  /** Where the protected-mode kernel begins in the file. */
  readonly kernelOffset: number
  /** Guest memory that the kernel unpacks itself into before it looks at anything else; `end` is exclusive. */
  readonly unpacked: { readonly start: number; readonly end: number }
  /** The highest address that the last byte of an initrd may have. */
  readonly initrdMaximum: number
  /** Bytes of the longest command line, without its zero byte. */
  readonly commandLineLimit: number
}

const showVersion = (version: number): string => `${version >> 8}.${String(version & 0xff).padStart(2, "0")}`

const otherKernel = "give a bzImage of a current x86 kernel"

// Where the header of a version ends at least: the last field that this loader reads in that version.
const shortestEnd = (version: number): number =>
  version >= 0x20a ? 0x264 : version >= 0x208 ? 0x250 : version >= 0x206 ? 0x23c : version >= 0x205 ? 0x235 : 0x230

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))

const checkFormat = (file: string, bytes: Uint8Array, view: DataView): Result.Result<void, ImageError> => {
  const enough = bytes.length >= offsets.version + 2
  const flag = enough ? view.getUint16(offsets.boot_flag, true) : 0
  const magic = enough ? view.getUint32(offsets.header, true) : 0
  if (flag === BOOT_FLAG && magic === MAGIC) {
    return Result.void
  }
  const kind = fileKind(bytes)
  // A kernel built as an EFI program begins with MZ too, so a short one that does may be a kernel cut off.
  if (!enough && (kind === undefined || (bytes[0] === 0x4d && bytes[1] === 0x5a))) {
    return fail({
      _tag: "Truncated",
      file,
      part: "the setup header's version",
      expected: offsets.version + 2,
      found: bytes.length
    })
  }
  const beyond = `nothing: the file has ${bytes.length} bytes`
  const [offset, expected, found] = flag === BOOT_FLAG
    ? [offsets.header, `the bzImage magic "HdrS" (${hex(MAGIC)})`, hex(magic)] as const
    : [offsets.boot_flag, `the boot flag ${hex(BOOT_FLAG)} of a bzImage`, enough ? hex(flag) : beyond] as const
  return fail({
    _tag: "WrongFormat",
    file,
    offset,
    expected,
    found,
    looksLike: kind?.looksLike ?? "",
    advice: kind?.advice ?? otherKernel
  })
}

/** `longMode`: whether the vCPU has long mode, which a 64-bit kernel needs although it is entered in 32-bit mode. */
export const parse = (
  file: string,
  fileBytes: Uint8Array,
  longMode: boolean
): Result.Result<SetupHeader, ImageError> => {
  // Not slice: on Node's Buffer, which is a Uint8Array too, that would be a view and no copy.
  const bytes = new Uint8Array(fileBytes.subarray(0, HEADER_ROOM_END))
  const view = new DataView(bytes.buffer)
  const format = checkFormat(file, bytes, view)
  if (Result.isFailure(format)) {
    return Result.fail(format.failure)
  }
  const unsupported = (
    field: keyof typeof offsets,
    expected: string,
    found: string,
    advice: string = otherKernel
  ) => fail({ _tag: "Unsupported", file, field, offset: offsets[field], expected, found, advice })
  const truncated = (part: string, expected: number) =>
    fail({ _tag: "Truncated", file, part, expected, found: fileBytes.length })

  const version = view.getUint16(offsets.version, true)
  if (version < OLDEST_VERSION) {
    return unsupported("version", `boot protocol ${showVersion(OLDEST_VERSION)} or later`, showVersion(version))
  }
  // A short jump over the header: its displacement, one byte, tells where the header ends.
  const end = Math.min(HEADER_ROOM_END, offsets.jump + 2 + view.getUint8(offsets.jump + 1))
  if (end < shortestEnd(version)) {
    return unsupported(
      "jump",
      `a jump to ${hex(shortestEnd(version))} or beyond, where the header of protocol ${showVersion(version)} ends`,
      `a jump to ${hex(end)}`,
      "the file is damaged: get it again"
    )
  }
  const sectors = view.getUint8(offsets.setup_sects) || 4
  const kernelOffset = (1 + sectors) * SECTOR_BYTES
  if (fileBytes.length <= kernelOffset) {
    return truncated("the real-mode part, before the kernel itself,", kernelOffset)
  }
  const loadFlags = view.getUint8(offsets.loadflags)
  if ((loadFlags & LOADED_HIGH) === 0) {
    return unsupported("loadflags", "bit 0 (LOADED_HIGH) set, as in every bzImage", hex(loadFlags))
  }
  if (version >= 0x204) {
    // Counted in units of 16 bytes, the last of which need not be full.
    const expected = kernelOffset + view.getUint32(offsets.syssize, true) * 16 - 15
    if (fileBytes.length < expected) {
      return truncated("the protected-mode kernel (syssize)", expected)
    }
  }
  if (version >= 0x208) {
    const expected = kernelOffset + view.getUint32(offsets.payload_offset, true) +
      view.getUint32(offsets.payload_length, true)
    if (fileBytes.length < expected) {
      return truncated("the compressed kernel (payload_offset + payload_length)", expected)
    }
  }
  if (version >= 0x20c && !longMode && (view.getUint16(offsets.xloadflags, true) & XLF_KERNEL_64) !== 0) {
    return unsupported(
      "xloadflags",
      "bit 0 (XLF_KERNEL_64) clear, since the vCPU has no long mode",
      hex(view.getUint16(offsets.xloadflags, true)),
      "give a 32-bit x86 kernel, or use a hypervisor whose vCPUs run 64-bit code"
    )
  }
  const relocatable = version >= 0x205 && view.getUint8(offsets.relocatable_kernel) !== 0
  const alignment = relocatable ? view.getUint32(offsets.kernel_alignment, true) : 1
  if (!isPowerOfTwo(alignment)) {
    return unsupported("kernel_alignment", "a power of two", hex(alignment), "the file is damaged: get it again")
  }
  const kernelEnd = LOAD_ADDRESS + fileBytes.length - kernelOffset
  // pref_address has 64 bits; as a number it may be rounded, but only far above any memory.
  const preferred = version >= 0x20a
    ? view.getUint32(offsets.pref_address, true) + view.getUint32(offsets.pref_address + 4, true) * 2 ** 32
    : LOAD_ADDRESS
  const start = relocatable ? Math.ceil(Math.max(LOAD_ADDRESS, preferred) / alignment) * alignment : preferred
  if (start < LOAD_ADDRESS) {
    return unsupported(
      "pref_address",
      `at least ${hex(LOAD_ADDRESS)} in a kernel that is not relocatable`,
      hex(start),
      "the file is damaged: get it again"
    )
  }
  return Result.succeed({
    bytes,
    end,
    kernelOffset,
    // Before 2.10 the header does not tell; then only the bytes loaded are known to be in use.
    unpacked: version >= 0x20a
      ? { start, end: start + view.getUint32(offsets.init_size, true) }
      : { start: LOAD_ADDRESS, end: kernelEnd },
    initrdMaximum: view.getUint32(offsets.initrd_addr_max, true),
    commandLineLimit: version >= 0x206 ? view.getUint32(offsets.cmdline_size, true) : 255
  })
}
