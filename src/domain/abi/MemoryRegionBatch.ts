/**
 * What VM_SET_MEMORY_REGIONS takes: a header and an array of operations, both of Linux's drivers/virt/acrn/acrn_drv.h,
 * and the values of their `type` and `attr` words.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * The numbers of an operation's `type` word (`ACRN_MEM_REGION_*`). ACRN takes any number but `Add` as a deletion.
 *
 * @category constants
 * @since 0.1.0
 */
export const MemoryRegionOpCode = { Add: 0, Delete: 2 } as const

/**
 * Access rights in an operation's `attr` word (`ACRN_MEM_ACCESS_*`); they may be joined by `|`.
 *
 * @category constants
 * @since 0.1.0
 */
export const MemoryAccess = { Read: 0x1, Write: 0x2, Execute: 0x4, All: 0x7 } as const

/**
 * Bits of `attr` that hold access rights.
 *
 * @category constants
 * @since 0.1.0
 */
export const MEMORY_ACCESS_MASK = 0x7

/**
 * Cache attributes in an operation's `attr` word (`ACRN_MEM_TYPE_*`): exactly one of them.
 *
 * @category constants
 * @since 0.1.0
 */
export const MemoryType = {
  WriteBack: 0x40,
  WriteThrough: 0x80,
  Uncached: 0x100,
  WriteCombining: 0x200,
  WriteProtected: 0x400
} as const

/**
 * Bits of `attr` that hold the cache attribute.
 *
 * @category constants
 * @since 0.1.0
 */
export const MEMORY_TYPE_MASK = 0x7c0

/**
 * `struct vm_memory_region_op`: map or unmap `size` bytes of guest memory. Addresses and size are multiples of a page.
 *
 * @category layouts
 * @since 0.1.0
 */
export const MemoryRegionOp = Layout.struct("vm_memory_region_op", {
  type: Field.u32("type"),
  attr: Field.u32("attr"),
  userVmPa: Field.u64("user_vm_pa"),
  serviceVmPa: Field.u64("service_vm_pa"),
  size: Field.u64("size")
})

/**
 * @category models
 * @since 0.1.0
 */
export type MemoryRegionOp = Layout.Value<typeof MemoryRegionOp>

/**
 * `struct vm_memory_region_batch`: `regionsNum` operations at the service address `regionsGpa`. The driver puts them
 * right behind the header, at `offsets.regionsOp`; the hypervisor only follows `regionsGpa`.
 *
 * @category layouts
 * @since 0.1.0
 */
export const MemoryRegionBatch = Layout.struct("vm_memory_region_batch", {
  vmid: Field.u16("vmid"),
  reserved: Field.reserved("reserved", Field.u16, 3),
  regionsNum: Field.u32("regions_num"),
  regionsGpa: Field.u64("regions_gpa"),
  regionsOp: Field.tail("regions_op", MemoryRegionOp)
})

/**
 * @category models
 * @since 0.1.0
 */
export type MemoryRegionBatch = Layout.Value<typeof MemoryRegionBatch>
