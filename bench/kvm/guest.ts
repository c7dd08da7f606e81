/**
 * The guest of the figures about KVM: loops of a few instructions, in flat 32-bit code. Its driver asks ports for a loop
 * and for how often it goes round, and tells by ports when it begins and when it is done.
 *
 * Nothing but the accesses is in a loop: a KVM that runs such code by interpreting it takes half a microsecond for any
 * other instruction.
 */

import { assemble, IN, looped, movEdx, OUT, word } from "./assemble.ts"

/** Where the code is, and where it starts. */
export const CODE = 0x1000
export const GUEST_MEMORY_BYTES = 1 << 20

/** The ports of the driver, which machine.c knows, too. */
export const ROUNDS_PORT = 0x80
export const LOOP_PORT = 0x84
export const START_PORT = 0x88
export const STOP_PORT = 0x89

/** What the loops access. */
export const DATA_PORT = 0x500
export const BELL_PORT = 0x600
export const DATA_ADDRESS = 0x1000_0000

interface Loop {
  /** What EDX is. */
  readonly address: number
  readonly round: ReadonlyArray<number>
}

const loops = {
  port: { address: DATA_PORT, round: assemble(OUT, IN) },
  /** MOV [EDX],EAX; MOV EAX,[EDX] */
  mmio: { address: DATA_ADDRESS, round: [0x89, 0x02, 0x8b, 0x02] },
  write: { address: DATA_PORT, round: OUT },
  bell: { address: BELL_PORT, round: OUT },
  /** NOP: the loop itself. */
  nothing: { address: 0, round: [0x90] }
} satisfies Record<string, Loop>

export type LoopName = keyof typeof loops

const driver = assemble(
  movEdx(ROUNDS_PORT),
  [0xed, 0x89, 0xc1], // IN EAX,DX; MOV ECX,EAX
  movEdx(LOOP_PORT),
  [0xed, 0x89, 0xc5], // IN EAX,DX; MOV EBP,EAX
  movEdx(START_PORT),
  OUT,
  [0xff, 0xe5] // JMP EBP
)

const loopCode = ({ address, round }: Loop): Array<number> =>
  assemble(movEdx(address), looped(round), movEdx(STOP_PORT), OUT)

const build = () => {
  const bytes = [...driver]
  const entries = Object.entries(loops).map(([name, loop]) => {
    const at = CODE + bytes.length
    bytes.push(...loopCode(loop))
    bytes.push(0xe9, ...word(-(bytes.length + 5))) // JMP driver
    return [name, at] as const
  })
  // The names are those of `loops`.
  return { image: Uint8Array.from(bytes), entries: Object.fromEntries(entries) as Readonly<Record<LoopName, number>> }
}

/** The bytes of the guest at {@link CODE}, and where each loop begins. */
export const { entries, image } = build()
