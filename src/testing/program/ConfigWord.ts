/**
 * PCI configuration mechanism 1 from the guest's side: what it writes to port 0xCF8, and where it finds the data then.
 *
 * Facts: PCI Local Bus Specification 3.0, 3.2.2.3.2; bits 27 to 24 are the high bits of an extended register, as in
 * Linux `drivers/virt/acrn/ioreq.c`.
 */

/** A register of a PCI function, in bytes. */
export interface PciRegister {
  readonly bus: number
  readonly device: number
  readonly function: number
  readonly register: number
}

const DATA_PORT = 0xcfc
const ENABLE = 0x8000_0000

/** The address register's word that selects a register's dword. */
export const of = ({ bus, device, function: at, register }: PciRegister): number =>
  (ENABLE | (register & 0xf00) << 16 | bus << 16 | device << 11 | at << 8 | register & 0xfc) >>> 0

/** The port at which a register of the selected dword is read and written. */
export const dataPort = ({ register }: PciRegister): number => DATA_PORT + (register & 3)
