/**
 * `struct acrn_ioeventfd` of `<linux/acrn.h>`: an eventfd that the driver signals when a guest writes to an address.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * The bits of `flags` (`ACRN_IOEVENTFD_FLAG_*`): a port instead of MMIO, only writes of `data`, take it away.
 *
 * @category constants
 * @since 0.1.0
 */
export const IoEventFdFlag = { Port: 0x1, DataMatch: 0x2, Deassign: 0x4 } as const

/**
 * `len` is 1, 2, 4 or 8 bytes from `addr` on.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IoEventFd = Layout.struct("acrn_ioeventfd", {
  fd: Field.u32("fd"),
  flags: Field.u32("flags"),
  addr: Field.u64("addr"),
  len: Field.u32("len"),
  reserved: Field.reserved("reserved", Field.u32),
  data: Field.u64("data")
})

/**
 * @category models
 * @since 0.1.0
 */
export type IoEventFd = Layout.Value<typeof IoEventFd>
