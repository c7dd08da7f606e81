/**
 * Guest programs for 32-bit vCPUs as lists of instructions, each a few bytes of x86 machine code. Enough to make every
 * kind of access; no labels, for loops know their own length.
 */

/** Machine code. */
export type Code = ReadonlyArray<number>

export type Size = 1 | 2 | 4

/** Joins pieces of code. */
export const code = (...parts: ReadonlyArray<Code>): Uint8Array => Uint8Array.from(parts.flat())

const bytesOf = (value: number, count: number): Array<number> =>
  Array.from({ length: count }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff)
const le32 = (value: number): Array<number> => bytesOf(value >>> 0, 4)

/** The form of an opcode for an access of `size` bytes: its byte form, or the other with or without a prefix. */
const sized = (size: Size, byteOpcode: number): Array<number> =>
  size === 1 ? [byteOpcode] : size === 2 ? [0x66, byteOpcode + 1] : [byteOpcode + 1]

export const Reg = { eax: 0, ecx: 1, edx: 2, ebx: 3, esp: 4, ebp: 5, esi: 6, edi: 7 } as const

/** MOV register, immediate. */
export const mov = (register: number, value: number): Code => [0xb8 + register, ...le32(value)]

/** OUT DX, accumulator; sets EDX and EAX. */
export const out = (port: number, value: number, size: Size = 1): Code => [
  ...mov(Reg.edx, port),
  ...mov(Reg.eax, value),
  ...sized(size, 0xee)
]

/** IN accumulator, DX; sets EDX. */
export const inp = (port: number, size: Size = 1): Code => [...mov(Reg.edx, port), ...sized(size, 0xec)]

/** MOV [address], accumulator. */
export const store = (address: number, size: Size = 4): Code => [...sized(size, 0xa2), ...le32(address)]

/** MOV accumulator, [address]. */
export const load = (address: number, size: Size = 4): Code => [...sized(size, 0xa0), ...le32(address)]

/** MOV [address], immediate; changes no register. */
export const storeImmediate = (address: number, value: number, size: Size = 4): Code => [
  ...sized(size, 0xc6),
  0x05,
  ...le32(address),
  ...bytesOf(value >>> 0, size)
]

/** ADD [address], immediate: a read and a write of one instruction. */
export const addImmediate = (address: number, value: number, size: Size = 4): Code => [
  ...sized(size, 0x80),
  0x05,
  ...le32(address),
  ...bytesOf(value >>> 0, size)
]

/** REP OUTS: `count` elements from memory to a port. */
export const repOut = (port: number, address: number, count: number, size: Size = 1): Code => [
  ...mov(Reg.edx, port),
  ...mov(Reg.esi, address),
  ...mov(Reg.ecx, count),
  0xf3,
  ...sized(size, 0x6e)
]

/** REP INS: `count` elements from a port to memory. */
export const repIn = (port: number, address: number, count: number, size: Size = 1): Code => [
  ...mov(Reg.edx, port),
  ...mov(Reg.edi, address),
  ...mov(Reg.ecx, count),
  0xf3,
  ...sized(size, 0x6c)
]

/** REP MOVS: `count` elements from memory to memory. */
export const repMove = (from: number, to: number, count: number, size: Size = 1): Code => [
  ...mov(Reg.esi, from),
  ...mov(Reg.edi, to),
  ...mov(Reg.ecx, count),
  0xf3,
  ...sized(size, 0xa4)
]

/** Runs `body` `count` times; it must leave ECX alone. */
export const loop = (count: number, ...body: ReadonlyArray<Code>): Code => {
  const inner = body.flat()
  // DEC ECX; JNZ with a 32-bit distance, counted from its own end.
  return [...mov(Reg.ecx, count), ...inner, 0x49, 0x0f, 0x85, ...le32(-(inner.length + 7))]
}

/** Runs `body` for ever. */
export const forever = (...body: ReadonlyArray<Code>): Code => {
  const inner = body.flat()
  return [...inner, 0xe9, ...le32(-(inner.length + 5))]
}

export const nop: Code = [0x90]
export const cli: Code = [0xfa]
export const sti: Code = [0xfb]
export const hlt: Code = [0xf4]
export const iret: Code = [0xcf]

/** The end of a program: nothing can wake the vCPU. */
export const stop: Code = [...cli, ...hlt]

/** Ends nothing: runs on the spot. */
export const spin: Code = [0xeb, 0xfe]

/** LIDT [address]. */
export const lidt = (address: number): Code => [0x0f, 0x01, 0x1d, ...le32(address)]

/** A 32-bit interrupt gate to `handler` in the flat code segment 0x10. */
export const gate = (handler: number): Code => [
  ...bytesOf(handler & 0xffff, 2),
  0x10,
  0x00,
  0x00,
  0x8e,
  ...bytesOf(handler >>> 16, 2)
]

/** What LIDT reads: the table's last offset, and where it begins. */
export const tablePointer = (base: number, entries: number): Code => [...bytesOf(entries * 8 - 1, 2), ...le32(base)]

/** Programs both interrupt controllers: lines 0 to 7 are vectors from `master`, 8 to 15 from `slave`; then the masks. */
export const programPics = (master: number, slave: number, masks: readonly [master: number, slave: number]): Code =>
  [
    [0x20, 0x11],
    [0xa0, 0x11],
    [0x21, master],
    [0xa1, slave],
    [0x21, 0x04],
    [0xa1, 0x02],
    [0x21, 0x01],
    [0xa1, 0x01],
    [0x21, masks[0]],
    [0xa1, masks[1]]
  ].flatMap(([port, value]) => out(port!, value!))

/** Tells a controller that its interrupt is served. */
export const endOfInterrupt = (port: 0x20 | 0xa0 = 0x20): Code => out(port, 0x20)
