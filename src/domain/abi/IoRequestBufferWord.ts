/**
 * `struct acrn_ioreq_buffer` of Linux's drivers/virt/acrn/acrn_drv.h: the one word that SET_IOREQ_BUFFER's second
 * parameter points at.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * `ioreqBuf` is the service address of the I/O request page.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IoRequestBufferWord = Layout.struct("acrn_ioreq_buffer", {
  ioreqBuf: Field.u64("ioreq_buf")
})

/**
 * @category models
 * @since 0.1.0
 */
export type IoRequestBufferWord = Layout.Value<typeof IoRequestBufferWord>
