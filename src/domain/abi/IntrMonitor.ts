/**
 * `struct acrn_intr_monitor` of ACRN's hypervisor/include/public/acrn_common.h: how often the interrupts of a VM's
 * passthrough devices came. VM_INTR_MONITOR reads and writes it in a page of the caller's.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * The numbers of `cmd` (`INTR_CMD_*`): read the counts, or delay each interrupt by `buffer[0]` milliseconds.
 *
 * @category constants
 * @since 0.1.0
 */
export const IntrCommand = { GetData: 0, DelayInt: 1 } as const

/**
 * Words in `buffer`: two for each of at most 24 passthrough devices (`MAX_PTDEV_NUM`).
 *
 * @category constants
 * @since 0.1.0
 */
export const INTR_MONITOR_WORDS = 48

/**
 * `bufCnt` is the number of words that `buffer` has room for, and after the call those that were filled: pairs of an
 * interrupt's number on the board and its count.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IntrMonitor = Layout.struct("acrn_intr_monitor", {
  cmd: Field.u32("cmd"),
  bufCnt: Field.u32("buf_cnt"),
  // Words to C, which aligns them so.
  buffer: { ...Field.bytes("buffer", INTR_MONITOR_WORDS * 8), align: 8 }
})

/**
 * @category models
 * @since 0.1.0
 */
export type IntrMonitor = Layout.Value<typeof IntrMonitor>
