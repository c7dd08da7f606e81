/**
 * The Multiboot information structure and what it points to: what a loader tells a kernel. Source: Multiboot
 * Specification 0.6.96, section 3.3; names are those of the document.
 */
import { lowAndHighRam, memoryMap } from "./memoryMap.ts"

const offsets = {
  flags: 0,
  mem_lower: 4,
  mem_upper: 8,
  cmdline: 16,
  mods_count: 20,
  mods_addr: 24,
  mmap_length: 44,
  mmap_addr: 48,
  boot_loader_name: 64
} as const

const INFORMATION_BYTES = 116
const MAP_ENTRY_BYTES = 24
const MODULE_BYTES = 16

const MEMORY = 1 << 0
const COMMAND_LINE = 1 << 2
const MODULES = 1 << 3
const MEMORY_MAP = 1 << 6
const LOADER_NAME = 1 << 9

const KIB = 1024

export interface Information {
  readonly memoryBytes: number
  /** All texts with their zero byte. */
  readonly commandLine: Uint8Array
  readonly loaderName: Uint8Array
  readonly modules: ReadonlyArray<{ readonly start: number; readonly end: number; readonly text: Uint8Array }>
}

interface Place {
  readonly modules: number
  readonly map: number
  readonly texts: number
  readonly end: number
}

const lay = (information: Information): Place => {
  const modules = INFORMATION_BYTES
  const map = modules + information.modules.length * MODULE_BYTES
  const texts = map + memoryMap(information.memoryBytes).length * MAP_ENTRY_BYTES
  return { modules, map, texts, end: textsOf(information).reduce((end, text) => end + text.length, texts) }
}

const textsOf = ({ commandLine, loaderName, modules }: Information): ReadonlyArray<Uint8Array> => [
  commandLine,
  loaderName,
  ...modules.map(({ text }) => text)
]

export const sizeOf = (information: Information): number => lay(information).end

/** The structures as they stand at guest physical `address`, a multiple of 4. */
export const encode = (information: Information, address: number): Uint8Array => {
  const place = lay(information)
  const bytes = new Uint8Array(place.end)
  const view = new DataView(bytes.buffer)

  let textAt = place.texts
  const putText = (text: Uint8Array): number => {
    const at = textAt
    bytes.set(text, at)
    textAt += text.length
    return address + at
  }

  const { high, low } = lowAndHighRam(information.memoryBytes)
  const set = (field: keyof typeof offsets, value: number) => view.setUint32(offsets[field], value, true)
  set("flags", MEMORY | COMMAND_LINE | MODULES | MEMORY_MAP | LOADER_NAME)
  set("mem_lower", Math.floor(low / KIB))
  set("mem_upper", Math.min(0xffff_ffff, Math.floor(high / KIB)))
  set("cmdline", putText(information.commandLine))
  set("boot_loader_name", putText(information.loaderName))
  set("mods_count", information.modules.length)
  set("mods_addr", address + place.modules)
  set("mmap_length", place.texts - place.map)
  set("mmap_addr", address + place.map)

  for (const [index, { end, start, text }] of information.modules.entries()) {
    const at = place.modules + index * MODULE_BYTES
    view.setUint32(at, start, true)
    view.setUint32(at + 4, end, true)
    view.setUint32(at + 8, putText(text), true)
  }
  for (const [index, { end, start, type }] of memoryMap(information.memoryBytes).entries()) {
    const at = place.map + index * MAP_ENTRY_BYTES
    // The size leaves itself out.
    view.setUint32(at, MAP_ENTRY_BYTES - 4, true)
    view.setBigUint64(at + 4, BigInt(start), true)
    view.setBigUint64(at + 12, BigInt(end - start), true)
    view.setUint32(at + 20, type, true)
  }
  return bytes
}
