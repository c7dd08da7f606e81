/** Enough of an assembler for the guests of the figures about KVM. */

type Bytes = ReadonlyArray<number>

/** A 32-bit word, lowest byte first. */
export const word = (value: number): Array<number> =>
  [value, value >> 8, value >> 16, value >> 24].map((byte) => byte & 0xff)

export const assemble = (...instructions: ReadonlyArray<Bytes>): Array<number> => instructions.flat()

export const movEdx = (value: number): Bytes => [0xba, ...word(value)]

/** OUT DX,AL */
export const OUT: Bytes = [0xee]

/** IN AL,DX */
export const IN: Bytes = [0xec]

const JUMP_BYTES = 2

/** `round`, and LOOP to its beginning: as often as ECX says. */
export const looped = (round: Bytes): Array<number> => assemble(round, [0xe2, -(round.length + JUMP_BYTES) & 0xff])

/** `round`, and JMP to its beginning. */
export const endless = (round: Bytes): Array<number> => assemble(round, [0xeb, -(round.length + JUMP_BYTES) & 0xff])
