/**
 * Boots the same Linux with the class `V86` of npm package v86, with those of its devices switched off that can be and
 * that we have not. Its clock starts when the kernel's 32-bit code runs, so that its BIOS does not count.
 */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { bootClock, COMMAND_LINE, MEMORY_BYTES, PROMPT, readBios, readGuest } from "./files.ts"

const file = (path: string): string => fileURLToPath(import.meta.resolve(`v86/build/${path}`))
const image = (bytes: Uint8Array) => ({ buffer: Uint8Array.from(bytes).buffer })

interface V86Class {
  new(options: object): {
    readonly add_listener: (event: "serial0-output-byte", listener: (byte: number) => void) => void
  }
}
const { V86 } = await import(file("libv86.mjs")) as { readonly V86: V86Class }

// Places in the memory of the core of v86 0.5.462, as src/layers/emulated/CpuOffsets.ts has them, and Linux's __BOOT_CS.
const INSTRUCTION_POINTER = 556
const CODE_SELECTOR = 670
const PROTECTED_MODE = 800
const KERNEL_SELECTOR = 0x10
const KERNEL_START = 0x10_0000

// This project's types have no DOM, and so no WebAssembly.
const wasm = (globalThis as unknown as {
  readonly WebAssembly: {
    readonly instantiate: (bytes: Uint8Array, imports: object) => Promise<{
      readonly instance: {
        readonly exports: { readonly memory: { readonly buffer: ArrayBuffer }; readonly main_loop: () => number }
      }
    }>
  }
}).WebAssembly

let stop: (() => void) | undefined

const { initrd, kernel } = readGuest()
const { bios, vgaBios } = readBios()
const emulator = new V86({
  wasm_fn: async (imports: object) => {
    const { instance } = await wasm.instantiate(readFileSync(file("v86.wasm")), imports)
    const { exports } = instance
    const isInKernel = () => {
      const view = new DataView(exports.memory.buffer)
      return view.getUint8(PROTECTED_MODE) !== 0 && view.getUint32(INSTRUCTION_POINTER, true) >= KERNEL_START &&
        view.getUint16(CODE_SELECTOR, true) === KERNEL_SELECTOR
    }
    return {
      ...exports,
      main_loop: () => {
        if (stop === undefined && isInKernel()) stop = bootClock()
        return exports.main_loop()
      }
    }
  },
  memory_size: MEMORY_BYTES,
  vga_memory_size: 1 << 20,
  bios: image(bios),
  vga_bios: image(vgaBios),
  bzimage: image(kernel),
  initrd: image(initrd),
  cmdline: COMMAND_LINE,
  net_device: { type: "none" },
  disable_keyboard: true,
  disable_mouse: true,
  disable_speaker: true,
  autostart: true
})

let line = ""
emulator.add_listener("serial0-output-byte", (byte) => {
  line = byte === 0x0a ? "" : line + String.fromCharCode(byte)
  if (line === PROMPT) stop?.()
})
