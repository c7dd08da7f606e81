/**
 * The zero page (`struct boot_params`): what a boot loader tells a Linux kernel. Sources: Linux
 * Documentation/arch/x86/boot.rst and zero-page.rst.
 */
import { PAGE_BYTES } from "../../../domain/Limits.ts"
import { memoryMap } from "./memoryMap.ts"
import { offsets, type SetupHeader } from "./setupHeader.ts"

const E820_ENTRIES = 0x1e8
const E820_TABLE = 0x2d0
const E820_ENTRY_BYTES = 20

const LOADER_UNDEFINED = 0xff
const CAN_USE_HEAP = 0x80
// The heap of the real-mode part, which is not run; the value is the one for a heap that ends at 64 KiB.
const HEAP_END = 0xfe00

export interface BootParameters {
  readonly header: SetupHeader
  readonly loadAddress: number
  readonly commandLineAddress: number
  readonly initrd: { readonly address: number; readonly bytes: number } | undefined
  readonly memoryBytes: number
}

export const encode = (parameters: BootParameters): Uint8Array => {
  const page = new Uint8Array(PAGE_BYTES)
  const view = new DataView(page.buffer)
  // The kernel's own header first: fields that are not set below keep what it says.
  page.set(parameters.header.bytes.subarray(offsets.setup_sects, parameters.header.end), offsets.setup_sects)
  view.setUint8(offsets.type_of_loader, LOADER_UNDEFINED)
  view.setUint8(offsets.loadflags, view.getUint8(offsets.loadflags) | CAN_USE_HEAP)
  view.setUint16(offsets.heap_end_ptr, HEAP_END, true)
  view.setUint32(offsets.code32_start, parameters.loadAddress, true)
  view.setUint32(offsets.cmd_line_ptr, parameters.commandLineAddress, true)
  view.setUint32(offsets.ramdisk_image, parameters.initrd?.address ?? 0, true)
  view.setUint32(offsets.ramdisk_size, parameters.initrd?.bytes ?? 0, true)

  const map = memoryMap(parameters.memoryBytes)
  view.setUint8(E820_ENTRIES, map.length)
  map.forEach(({ end, start, type }, index) => {
    const at = E820_TABLE + index * E820_ENTRY_BYTES
    view.setBigUint64(at, BigInt(start), true)
    view.setBigUint64(at + 8, BigInt(end - start), true)
    view.setUint32(at + 16, type, true)
  })
  return page
}
