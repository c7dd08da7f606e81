/**
 * The numbers that bound every Upcall program, each with its source.
 *
 * @since 0.1.0
 */

/**
 * I/O request slots in the shared page, and so the most vCPUs a VM can have: slot index = vCPU id
 * (`ACRN_IO_REQUEST_MAX` in `<linux/acrn.h>`).
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_VCPUS = 16

/**
 * Bytes of one I/O request slot (`struct acrn_io_request`, aligned to 256).
 *
 * @category limits
 * @since 0.1.0
 */
export const SLOT_BYTES = 256

/**
 * Bytes of a page: the unit of the memory map and the size of the I/O request page.
 *
 * @category limits
 * @since 0.1.0
 */
export const PAGE_BYTES = 4096

/**
 * Operations in one memory batch that Upcall sends. The driver's own limit of 256 regions counts its SET_MEMSEG calls
 * for RAM (`ACRN_MEM_MAPPING_MAX` in Linux `drivers/virt/acrn/acrn_drv.h`); a batch has none but its u32 count.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_MEMORY_REGIONS = 256

/**
 * One past the highest port: ports are 0 to 0xFFFF, inclusive.
 *
 * @category limits
 * @since 0.1.0
 */
export const PORT_SPACE_END = 0x1_0000

/**
 * One past the highest physical address that x86 can have (52 address bits), a safe integer.
 *
 * @category limits
 * @since 0.1.0
 */
export const ADDRESS_SPACE_END = 2 ** 52

/**
 * The VM id that CREATE_VM leaves behind when it failed although it returned 0 (`ACRN_INVALID_VMID`).
 *
 * @category limits
 * @since 0.1.0
 */
export const INVALID_VM_ID = 0xffff
