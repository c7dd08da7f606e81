/**
 * Guest memory in `<linux/kvm.h>`: slots, and which of their pages the guest wrote.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"

/**
 * `struct kvm_userspace_memory_region`: `memorySize` bytes of this process from `userspaceAddr` on are the guest's from
 * `guestPhysAddr` on, all multiples of the page; 0 bytes take the slot away. `flags` holds `MemoryRegionFlag` bits.
 */
export const UserspaceMemoryRegion = Layout.struct("kvm_userspace_memory_region", {
  slot: Field.u32("slot"),
  flags: Field.u32("flags"),
  guestPhysAddr: Field.u64("guest_phys_addr"),
  memorySize: Field.u64("memory_size"),
  userspaceAddr: Field.u64("userspace_addr")
})

export type UserspaceMemoryRegion = Layout.Value<typeof UserspaceMemoryRegion>

/** `KVM_MEM_*`: note the pages written; make the guest's writes MMIO exits. */
export const MemoryRegionFlag = { LOG_DIRTY_PAGES: 0x1, READONLY: 0x2 } as const

/** `struct kvm_dirty_log`: `dirtyBitmap` is the address of one bit for each page, in whole 64-bit words. */
export const DirtyLog = Layout.struct("kvm_dirty_log", {
  slot: Field.u32("slot"),
  padding1: Field.reserved("padding1", Field.u32),
  dirtyBitmap: Field.u64("dirty_bitmap")
})

/** `struct kvm_clear_dirty_log`: `firstPage` and, but for the slot's end, `numPages` are multiples of 64. */
export const ClearDirtyLog = Layout.struct("kvm_clear_dirty_log", {
  slot: Field.u32("slot"),
  numPages: Field.u32("num_pages"),
  firstPage: Field.u64("first_page"),
  dirtyBitmap: Field.u64("dirty_bitmap")
})

/** `KVM_DIRTY_LOG_*`: the argument of the capability MANUAL_DIRTY_LOG_PROTECT2. */
export const ManualDirtyLog = { MANUAL_PROTECT_ENABLE: 0x1, INITIALLY_SET: 0x2 } as const
