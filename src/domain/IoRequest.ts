/**
 * What a guest asked of a device: the immutable value that is read once from a slot and handed to an I/O client.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as Unsigned from "./abi/Unsigned.ts"
import { GuestAddress, hex, Port, VcpuId } from "./Address.ts"

/**
 * Data of a port or PCI configuration access: a u32, narrower accesses in its low bytes.
 *
 * @category schemas
 * @since 0.1.0
 */
export const U32 = Unsigned.U32

/**
 * Data of an MMIO access: a u64, narrower accesses in its low bytes.
 *
 * @category schemas
 * @since 0.1.0
 */
export const U64 = Unsigned.U64

const narrowSize = Schema.Literals([1, 2, 4])
const wideSize = Schema.Literals([1, 2, 4, 8])

const portFields = { vcpu: VcpuId, port: Port, size: narrowSize }
const mmioFields = { vcpu: VcpuId, address: GuestAddress, size: wideSize }
const pciFields = {
  vcpu: VcpuId,
  bus: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })),
  device: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 31 })),
  function: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 7 })),
  register: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xfff })),
  size: narrowSize
}

/**
 * The six requests: three spaces, read or write. `size` is in bytes; `value` of a write has no bits above it.
 *
 * @category schemas
 * @since 0.1.0
 */
export const IoRequest = Schema.TaggedUnion({
  PortRead: portFields,
  PortWrite: { ...portFields, value: U32 },
  MmioRead: mmioFields,
  MmioWrite: { ...mmioFields, value: U64 },
  PciRead: pciFields,
  PciWrite: { ...pciFields, value: U32 }
})

/**
 * @category models
 * @since 0.1.0
 */
export type IoRequest = typeof IoRequest.Type

/**
 * @category models
 * @since 0.1.0
 */
export type PortRead = Extract<IoRequest, { readonly _tag: "PortRead" }>

/**
 * @category models
 * @since 0.1.0
 */
export type PortWrite = Extract<IoRequest, { readonly _tag: "PortWrite" }>

/**
 * @category models
 * @since 0.1.0
 */
export type MmioRead = Extract<IoRequest, { readonly _tag: "MmioRead" }>

/**
 * @category models
 * @since 0.1.0
 */
export type MmioWrite = Extract<IoRequest, { readonly _tag: "MmioWrite" }>

/**
 * @category models
 * @since 0.1.0
 */
export type PciRead = Extract<IoRequest, { readonly _tag: "PciRead" }>

/**
 * @category models
 * @since 0.1.0
 */
export type PciWrite = Extract<IoRequest, { readonly _tag: "PciWrite" }>

/**
 * What a handler answers: the value of a read (bits above the access size are dropped), anything for a write.
 *
 * @category models
 * @since 0.1.0
 */
export type IoValue = number | bigint | void

/**
 * A request as messages show it: `read 1 byte from port 0x3fd (vCPU 0)`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (request: IoRequest): string => {
  const bytes = request.size === 1 ? "1 byte" : `${request.size} bytes`
  const what = "value" in request ? `write ${bytes} ${hex(request.value)} to` : `read ${bytes} from`
  switch (request._tag) {
    case "PortRead":
    case "PortWrite":
      return `${what} port ${hex(request.port)} (vCPU ${request.vcpu})`
    case "MmioRead":
    case "MmioWrite":
      return `${what} guest address ${hex(request.address)} (vCPU ${request.vcpu})`
    case "PciRead":
    case "PciWrite":
      return `${what} register ${hex(request.register)} of PCI ${request.bus}:${request.device}.${request.function} ` +
        `(vCPU ${request.vcpu})`
  }
}
