/**
 * `struct acrn_ioreq_notify` of `<linux/acrn.h>`: which vCPU's request is finished. It travels in the driver's ioctl;
 * the hypercall passes the two numbers in registers.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * @category layouts
 * @since 0.1.0
 */
export const IoRequestNotify = Layout.struct("acrn_ioreq_notify", {
  vmid: Field.u16("vmid"),
  reserved: Field.reserved("reserved", Field.u16),
  vcpu: Field.u32("vcpu")
})

/**
 * @category models
 * @since 0.1.0
 */
export type IoRequestNotify = Layout.Value<typeof IoRequestNotify>
