/**
 * The registers of a PC through which a guest resets it, and nothing of a keyboard.
 *
 * Facts: Intel 8042 (IBM PC/AT Technical Reference, keyboard controller): commands 0xF0 to 0xFF pulse the output port's
 * lines whose bit is 0, bit 0 is the reset line; command 0xD1 writes the output port. Port 0x92: PS/2 system control
 * port A, bit 0 resets when it rises, bit 1 gates address line 20. Port 0xCF9: reset control register of Intel's I/O
 * controller hubs, bit 2 resets when it rises.
 *
 * @since 0.1.0
 */

/**
 * Ports 0x60 and 0x64: the keyboard controller.
 *
 * @category constants
 * @since 0.1.0
 */
export const KEYBOARD_DATA = 0x60

/**
 * @category constants
 * @since 0.1.0
 */
export const KEYBOARD_COMMAND = 0x64

/**
 * Port 0x92: the fast gate and reset.
 *
 * @category constants
 * @since 0.1.0
 */
export const SYSTEM_CONTROL_A = 0x92

/**
 * Port 0xCF9: the chipset's reset.
 *
 * @category constants
 * @since 0.1.0
 */
export const RESET_CONTROL = 0xcf9

/**
 * What the keyboard controller's status reads as: something to be read (bit 0), always, and nothing waiting to be taken
 * (bit 1). Linux (drivers/input/serio/i8042.c) reads 16 bytes, still finds one, and reports that there is no controller;
 * before a reboot it waits until bit 1 is clear (arch/x86/kernel/reboot.c), 131 ms if it never is.
 */
const KEYBOARD_STATUS = 0xfd

const WRITE_OUTPUT_PORT = 0xd1
const PULSE = 0xf0
const OUTPUT_NO_RESET = 0x01
const OUTPUT_A20 = 0x02
const SYSTEM_A_RESET = 0x01
const SYSTEM_A_A20 = 0x02
const RESET_CPU = 0x04

/**
 * One set of them. Address line 20 is on from the start; the gate is kept and masks nothing.
 *
 * @category models
 * @since 0.1.0
 */
export class ResetChip {
  private command = 0
  private systemControlA = SYSTEM_A_A20
  private resetControl = 0

  /** Reads one of the four ports. */
  read(port: number): number {
    switch (port) {
      case KEYBOARD_COMMAND:
        return KEYBOARD_STATUS
      case SYSTEM_CONTROL_A:
        return this.systemControlA
      case RESET_CONTROL:
        return this.resetControl
      default:
        return 0
    }
  }

  /** Writes a byte to one of the four ports. The result names what resets the machine, if that does. */
  write(port: number, value: number): string | undefined {
    switch (port) {
      case KEYBOARD_COMMAND:
        this.command = value
        return value >= PULSE && (value & OUTPUT_NO_RESET) === 0 ? "the keyboard controller (port 0x64)" : undefined
      case KEYBOARD_DATA:
        return this.writeKeyboardData(value)
      case SYSTEM_CONTROL_A: {
        const rose = value & ~this.systemControlA & SYSTEM_A_RESET
        this.systemControlA = value
        return rose === 0 ? undefined : "system control port A (port 0x92)"
      }
      case RESET_CONTROL: {
        const rose = value & ~this.resetControl & RESET_CPU
        this.resetControl = value
        return rose === 0 ? undefined : "the reset control register (port 0xcf9)"
      }
      default:
        return undefined
    }
  }

  private writeKeyboardData(value: number): string | undefined {
    const isOutputPort = this.command === WRITE_OUTPUT_PORT
    this.command = 0
    if (!isOutputPort) return undefined
    this.systemControlA = this.systemControlA & ~SYSTEM_A_A20 | ((value & OUTPUT_A20) === 0 ? 0 : SYSTEM_A_A20)
    return (value & OUTPUT_NO_RESET) === 0 ? "the keyboard controller (port 0x64)" : undefined
  }
}
