/** Guests of a few bytes: flat 32-bit code for address 0x1000, without any address in it. */

const code = (hex: string): Uint8Array => Uint8Array.from(hex.trim().split(/\s+/), (byte) => Number.parseInt(byte, 16))

/** mov al, 42; mov edx, 0xf4; out dx, al; hlt */
export const exits42 = code("b0 2a ba f4 00 00 00 ee f4")

/** hlt, with interrupts off */
export const halts = code("f4")

/** mov al, 'y'; mov edx, 0x3f8; out dx, al; then jumps to itself for ever */
export const spins = code("b0 79 ba f8 03 00 00 ee eb fe")

/** mov al, 'y'; mov edx, 0x3f8; then writes it for ever */
export const floods = code("b0 79 ba f8 03 00 00 ee eb fd")

/**
 * Echoes each byte that comes to the serial port, a "q" as well, and exits with 5 after it:
 * wait: mov edx, 0x3fd; in al, dx; test al, 1; jz wait; mov edx, 0x3f8; in al, dx; out dx, al; cmp al, 'q'; jne wait
 */
export const echoes = code(
  "ba fd 03 00 00 ec a8 01 74 f6 ba f8 03 00 00 ec ee 3c 71 75 eb b0 05 ba f4 00 00 00 ee f4"
)

/** ud2, without anything that would take the exception */
export const crashes = code("0f 0b")
