import { assert } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import * as Cpu from "../../../src/layers/emulated/Cpu.ts"
import { CpuError, type CpuErrorReason } from "../../../src/layers/emulated/CpuError.ts"
import * as CpuModule from "../../../src/layers/emulated/CpuModule.ts"

export const wasmBytes = (): Uint8Array => readFileSync(fileURLToPath(import.meta.resolve("v86/build/v86.wasm")))

export const ENTRY = 0x1000
export const MEGABYTE = 1 << 20

/** Options of a CPU with no devices, and time that is a function of how often it was asked for. */
export const bare = (): Cpu.CpuOptions => {
  let milliseconds = 0
  let word = 1
  return {
    memoryBytes: MEGABYTE,
    now: () => milliseconds += 0.125,
    random: () => word = Math.imul(word, 1103515245) + 12345 | 0,
    onTimers: () => 1,
    onPortRead: () => 0xffff_ffff,
    onPortWrite: () => undefined,
    onMmioRead: () => 0xffff_ffff,
    onMmioWrite: () => undefined
  }
}

/** Machine code; instructions may be grouped. */
export type Code = ReadonlyArray<number | ReadonlyArray<number>>

/** A CPU that is about to run `code` at {@link ENTRY} in flat 32-bit mode. */
export const flat = async (
  code: Code,
  options: Partial<Cpu.CpuOptions> = {},
  gprs: Partial<VcpuRegisters.GeneralRegisters> = {}
): Promise<Cpu.Cpu> => {
  const cpu = Cpu.make(await CpuModule.installed(), { ...bare(), ...options })
  cpu.memory.write(ENTRY, Uint8Array.from(code.flat()))
  cpu.setRegisters(VcpuRegisters.flat32({ entry: ENTRY, stack: 0x7000, gprs }))
  return cpu
}

/** Runs until the guest halts or `slices` are over. */
export const runToEnd = async (cpu: Cpu.Cpu, slices = 1000): Promise<Cpu.SliceEnd> => {
  let end = await cpu.run()
  for (let slice = 1; slice < slices && end._tag === "Preempted"; slice++) {
    end = await cpu.run()
  }
  return end
}

/** A word, lowest byte first. */
export const le32 = (value: number): Array<number> => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)

/** A half word, lowest byte first. */
export const le16 = (value: number): Array<number> => [value & 0xff, (value >>> 8) & 0xff]

/** A promise that the test settles. */
export const later = <A>(): { readonly promise: Promise<A>; readonly resolve: (value: A) => void } => {
  const { promise, resolve } = Promise.withResolvers<A>()
  return { promise, resolve }
}

// An interrupt descriptor of a 32-bit interrupt gate.
const gate = (selector: number, handler: number): Array<number> => [
  ...le16(handler),
  ...le16(selector),
  0,
  0x8e,
  ...le16(handler >>> 16)
]

// Null, null, flat code (0x10), flat data (0x18).
export const gdt = [[0, 0], [0, 0], [0xffff, 0xcf_9b00], [0xffff, 0xcf_9300]].flat().flatMap(le32)

export const IDT = 0x2000
export const GDT = 0x3000
const HANDLER = 0x4000
export const TICKS = 0x5000

// The usual initialization of the two controllers: vectors 0x20 and 0x28; only lines 0, 2 and 9 are let through.
const setUpControllers = [
  [0x20, 0x11],
  [0x21, 0x20],
  [0x21, 0x04],
  [0x21, 0x01],
  [0xa0, 0x11],
  [0xa1, 0x28],
  [0xa1, 0x02],
  [0xa1, 0x01],
  [0x21, 0xfa],
  [0xa1, 0xfd]
].flatMap(([port = 0, value = 0]) => [0xb0, value, 0xe6, port])

/** A CPU with interrupt tables; `vector`'s handler counts at TICKS, ends the interrupt at both controllers, returns. */
export const interruptible = async (
  code: Code,
  options: Partial<Cpu.CpuOptions>,
  vector = 0x20
): Promise<Cpu.Cpu> => {
  const cpu = await flat([...setUpControllers, ...code], options)
  cpu.memory.write(GDT, Uint8Array.from(gdt))
  cpu.memory.write(IDT + 8 * vector, Uint8Array.from(gate(0x10, HANDLER)))
  // push eax; inc dword [TICKS]; mov al, 0x20; out 0xa0, al; out 0x20, al; pop eax; iret
  cpu.memory.write(
    HANDLER,
    Uint8Array.of(0x50, 0xff, 0x05, ...le32(TICKS), 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf)
  )
  const registers = cpu.getRegisters()
  cpu.setRegisters({
    ...registers,
    gdt: { base: BigInt(GDT), limit: gdt.length - 1 },
    idt: { base: BigInt(IDT), limit: 0x7ff }
  })
  return cpu
}

/** Why a promise was rejected with a `CpuError`. */
export const reasonOf = async (promise: Promise<unknown>): Promise<CpuErrorReason> => {
  const cause: unknown = await promise.then(() => undefined, (error: unknown) => error)
  assert.instanceOf(cause, CpuError)
  return cause.reason
}

export const HLT = 0xf4
