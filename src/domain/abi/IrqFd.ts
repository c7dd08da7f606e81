/**
 * `struct acrn_irqfd` of `<linux/acrn.h>`: an eventfd that interrupts a VM when it is signalled.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"
import { MsiEntry } from "./MsiEntry.ts"

/**
 * The bit of `flags` that takes the eventfd away (`ACRN_IRQFD_FLAG_DEASSIGN`).
 *
 * @category constants
 * @since 0.1.0
 */
export const IRQFD_DEASSIGN = 0x1

/**
 * `msi` is the interrupt. `fd` is signed in C; a file descriptor that there is fits both.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IrqFd = Layout.struct("acrn_irqfd", {
  fd: Field.u32("fd"),
  flags: Field.u32("flags"),
  msi: Layout.nested("msi", MsiEntry)
})

/**
 * @category models
 * @since 0.1.0
 */
export type IrqFd = Layout.Value<typeof IrqFd>
