/**
 * The shared page of I/O requests of `<linux/acrn.h>`: 16 slots of 256 bytes, slot index = vCPU id.
 *
 * The layouts code whole structures; the `*_OFFSET` constants, taken from the same tables, are for code that loads and
 * stores single words of a live page.
 *
 * @since 0.1.0
 */
import { MAX_VCPUS } from "../Limits.ts"
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * The numbers of a slot's `processed` word (`ACRN_IOREQ_STATE_*`). Note that Pending is 0: a zero-filled page reads as
 * 16 pending port reads.
 *
 * @category constants
 * @since 0.1.0
 */
export const SlotStateCode = { Pending: 0, Complete: 1, Processing: 2, Free: 3 } as const

/**
 * The state that a slot's `processed` word stands for, or `undefined` when it is none of `SlotStateCode`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const slotStateOf = (code: number): keyof typeof SlotStateCode | undefined => slotStates.get(code)

const slotStates = new Map<number, keyof typeof SlotStateCode>(
  Object.entries(SlotStateCode).map(([name, code]) => [code, name as keyof typeof SlotStateCode])
)

/**
 * The numbers of a slot's `type` word (`ACRN_IOREQ_TYPE_*`). `WriteProtected` is `REQ_WP` of ACRN's acrn_common.h;
 * Linux's header does not name it.
 *
 * @category constants
 * @since 0.1.0
 */
export const RequestTypeCode = { PortIo: 0, Mmio: 1, PciConfig: 2, WriteProtected: 3 } as const

/**
 * The numbers of a request's `direction` word (`ACRN_IOREQ_DIR_*`).
 *
 * @category constants
 * @since 0.1.0
 */
export const DirectionCode = { Read: 0, Write: 1 } as const

/**
 * `struct acrn_pio_request`: an access to an I/O port. `size` is in bytes.
 *
 * @category layouts
 * @since 0.1.0
 */
export const PioRequest = Layout.struct("acrn_pio_request", {
  direction: Field.u32("direction"),
  reserved: Field.reserved("reserved", Field.u32),
  address: Field.u64("address"),
  size: Field.u64("size"),
  value: Field.u32("value")
})

/**
 * `struct acrn_mmio_request`: an access to guest physical memory. `size` is in bytes.
 *
 * @category layouts
 * @since 0.1.0
 */
export const MmioRequest = Layout.struct("acrn_mmio_request", {
  direction: Field.u32("direction"),
  reserved: Field.reserved("reserved", Field.u32),
  address: Field.u64("address"),
  size: Field.u64("size"),
  value: Field.u64("value")
})

/**
 * `struct acrn_pci_request`: an access to PCI configuration space. `direction`, `size` and `value` lie where the port
 * request has them, so folding a port access into a PCI one leaves them alone.
 *
 * @category layouts
 * @since 0.1.0
 */
export const PciRequest = Layout.struct("acrn_pci_request", {
  direction: Field.u32("direction"),
  reserved: Field.reserved("reserved", Field.u32, 3),
  size: Field.u64("size"),
  value: Field.u32("value"),
  bus: Field.u32("bus"),
  dev: Field.u32("dev"),
  func: Field.u32("func"),
  reg: Field.u32("reg")
})

/**
 * `struct acrn_io_request`: one slot. `reqs` is the raw 64 bytes of the union; decode it with the layout that `type`
 * names.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IoRequestSlot = Layout.struct("acrn_io_request", {
  type: Field.u32("type"),
  completionPolling: Field.u32("completion_polling"),
  reserved0: Field.reserved("reserved0", Field.u32, 14),
  reqs: Field.union("reqs", 64, {
    pio_request: PioRequest,
    pci_request: PciRequest,
    mmio_request: MmioRequest
  }),
  reserved1: Field.reserved("reserved1", Field.u32),
  kernelHandled: Field.u32("kernel_handled"),
  processed: Field.u32("processed")
}, { align: 256 })

/**
 * @category models
 * @since 0.1.0
 */
export type IoRequestSlot = Layout.Value<typeof IoRequestSlot>

/**
 * `struct acrn_io_request_buffer`: the page, 4096 bytes.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IoRequestPage = Layout.struct("acrn_io_request_buffer", {
  reqSlot: Layout.array("req_slot", IoRequestSlot, MAX_VCPUS)
})

/**
 * u32: a `RequestTypeCode`.
 *
 * @category offsets
 * @since 0.1.0
 */
export const SLOT_TYPE_OFFSET = IoRequestSlot.offsets.type

/**
 * u32: not 0 when the hypervisor spins on the state.
 *
 * @category offsets
 * @since 0.1.0
 */
export const SLOT_COMPLETION_POLLING_OFFSET = IoRequestSlot.offsets.completionPolling

/**
 * Where the request union begins.
 *
 * @category offsets
 * @since 0.1.0
 */
export const SLOT_REQUEST_OFFSET = IoRequestSlot.offsets.reqs

/**
 * u32: not 0 when the kernel answers the request itself.
 *
 * @category offsets
 * @since 0.1.0
 */
export const SLOT_KERNEL_HANDLED_OFFSET = IoRequestSlot.offsets.kernelHandled

/**
 * u32: a `SlotStateCode`.
 *
 * @category offsets
 * @since 0.1.0
 */
export const SLOT_STATE_OFFSET = IoRequestSlot.offsets.processed

// From the start of the slot, not of the union: one addition less for who reads a word of a live slot.
const inSlot = (offset: number): number => SLOT_REQUEST_OFFSET + offset

/**
 * u32, in all three requests: a `DirectionCode`.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_DIRECTION_OFFSET = inSlot(PioRequest.offsets.direction)

/**
 * u64, port and memory requests.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_ADDRESS_OFFSET = inSlot(PioRequest.offsets.address)

/**
 * u64, in all three requests: bytes accessed.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_SIZE_OFFSET = inSlot(PioRequest.offsets.size)

/**
 * u32 in port and PCI requests, u64 in memory requests.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_VALUE_OFFSET = inSlot(PioRequest.offsets.value)

/**
 * u32, PCI requests.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_PCI_BUS_OFFSET = inSlot(PciRequest.offsets.bus)

/**
 * u32, PCI requests.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_PCI_DEVICE_OFFSET = inSlot(PciRequest.offsets.dev)

/**
 * u32, PCI requests.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_PCI_FUNCTION_OFFSET = inSlot(PciRequest.offsets.func)

/**
 * u32, PCI requests.
 *
 * @category offsets
 * @since 0.1.0
 */
export const REQUEST_PCI_REGISTER_OFFSET = inSlot(PciRequest.offsets.reg)
