/**
 * `struct acrn_msi_entry` of `<linux/acrn.h>`: a message-signalled interrupt for a VM, as INJECT_MSI takes it.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * The message as the processor's manual has it: the address names the vCPU (bits 19..12), the data the vector (bits
 * 7..0).
 *
 * @category layouts
 * @since 0.1.0
 */
export const MsiEntry = Layout.struct("acrn_msi_entry", {
  msiAddr: Field.u64("msi_addr"),
  msiData: Field.u64("msi_data")
})

/**
 * @category models
 * @since 0.1.0
 */
export type MsiEntry = Layout.Value<typeof MsiEntry>
