/**
 * `struct acrn_vm_memmap` of `<linux/acrn.h>`: memory that the driver's SET_MEMSEG gives to a VM and UNSET_MEMSEG takes
 * away.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * What a memory segment is made of (`ACRN_MEMMAP_*`). The driver pins RAM; MMIO is given as it is.
 *
 * @category constants
 * @since 0.1.0
 */
export const MemmapTypeCode = { Ram: 0, Mmio: 1 } as const

/**
 * `type` is a `MemmapTypeCode`. `vmaBase` is a user address of RAM, or, under its other name `service_vm_pa`, the
 * physical address of MMIO. `attr` is access rights alone: the driver maps RAM as write-back and MMIO as uncached.
 *
 * @category layouts
 * @since 0.1.0
 */
export const VmMemmap = Layout.struct("acrn_vm_memmap", {
  type: Field.u32("type"),
  attr: Field.u32("attr"),
  userVmPa: Field.u64("user_vm_pa"),
  vmaBase: Field.u64("vma_base"),
  len: Field.u64("len")
})

/**
 * @category models
 * @since 0.1.0
 */
export type VmMemmap = Layout.Value<typeof VmMemmap>
