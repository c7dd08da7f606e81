/**
 * `struct acrn_vm_creation` of `<linux/acrn.h>`: what CREATE_VM takes and where it answers.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * `vmid` and `vcpuNum` are filled in by the hypervisor. `uuid` (16 bytes) is a GUID in Linux 6.1; today's ACRN reads
 * the same bytes as a name. `ioreqBuf` is a user address under Linux, which no hypervisor can use: SET_IOREQ_BUFFER
 * names the page. `cpuAffinity` has a bit per processor; 0 means all that the VM is configured for.
 *
 * @category layouts
 * @since 0.1.0
 */
export const VmCreation = Layout.struct("acrn_vm_creation", {
  vmid: Field.u16("vmid"),
  reserved0: Field.reserved("reserved0", Field.u16),
  vcpuNum: Field.u16("vcpu_num"),
  reserved1: Field.reserved("reserved1", Field.u16),
  uuid: Field.bytes("uuid", 16),
  vmFlag: Field.u64("vm_flag"),
  ioreqBuf: Field.u64("ioreq_buf"),
  cpuAffinity: Field.u64("cpu_affinity")
})

/**
 * @category models
 * @since 0.1.0
 */
export type VmCreation = Layout.Value<typeof VmCreation>
