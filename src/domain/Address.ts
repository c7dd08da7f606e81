/**
 * Addresses and ids, branded so that a guest address is never taken for a service address.
 *
 * Physical addresses are JS numbers: x86 has at most 52 address bits, so a safe integer holds any of them.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { ADDRESS_SPACE_END, INVALID_VM_ID, MAX_VCPUS, PAGE_BYTES, PORT_SPACE_END } from "./Limits.ts"

const PhysicalAddress = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: ADDRESS_SPACE_END - 1 }))

/**
 * A guest physical address: what the guest's own page tables and DMA name. 0 to 2^52 - 1.
 *
 * @category schemas
 * @since 0.1.0
 */
export const GuestAddress = PhysicalAddress.pipe(Schema.brand("GuestAddress"))

/**
 * @category models
 * @since 0.1.0
 */
export type GuestAddress = typeof GuestAddress.Type

/**
 * A Service VM physical address: where hypercall structures, the I/O request page and guest RAM lie. 0 to 2^52 - 1.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ServiceAddress = PhysicalAddress.pipe(Schema.brand("ServiceAddress"))

/**
 * @category models
 * @since 0.1.0
 */
export type ServiceAddress = typeof ServiceAddress.Type

/**
 * An x86 I/O port, 0 to 0xFFFF inclusive.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Port = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: PORT_SPACE_END - 1 })).pipe(
  Schema.brand("Port")
)

/**
 * @category models
 * @since 0.1.0
 */
export type Port = typeof Port.Type

/**
 * The id that the hypervisor gave a VM, 0 to 0xFFFE; 0xFFFF means that creation failed.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VmId = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: INVALID_VM_ID - 1 })).pipe(
  Schema.brand("VmId")
)

/**
 * @category models
 * @since 0.1.0
 */
export type VmId = typeof VmId.Type

/**
 * A vCPU's id, which is also the index of its slot in the I/O request page: 0 to 15.
 *
 * @category schemas
 * @since 0.1.0
 */
export const VcpuId = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: MAX_VCPUS - 1 })).pipe(
  Schema.brand("VcpuId")
)

/**
 * @category models
 * @since 0.1.0
 */
export type VcpuId = typeof VcpuId.Type

/**
 * Tells whether an address or a size in bytes lies on a page boundary.
 *
 * @category guards
 * @since 0.1.0
 */
export const isPageAligned = (value: number): boolean => value % PAGE_BYTES === 0

/**
 * Formats an address the way every message of Upcall shows one: lower-case hexadecimal with `0x`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const hex = (value: number | bigint): string =>
  value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`
