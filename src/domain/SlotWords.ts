/**
 * What a request slot says, read from a copy of its words: the one decoder of untrusted requests.
 *
 * Word indices come from the slot's layout table. Every number is checked before it is used as one: sizes, the 16-bit
 * port space, the 52-bit address space, PCI coordinates.
 *
 * @since 0.1.0
 */
import * as Slot from "./abi/IoRequestSlot.ts"
import { hex, type Port } from "./Address.ts"
import type { GuestAddress, VcpuId } from "./Address.ts"
import type { IoRequest, IoValue } from "./IoRequest.ts"
import { PORT_SPACE_END, SLOT_BYTES } from "./Limits.ts"

/**
 * Words of a slot's copy, to be passed to `ServicePage.fetchRequest`.
 *
 * @category limits
 * @since 0.1.0
 */
export const SLOT_WORDS = SLOT_BYTES / 4

const word = (offset: number): number => offset / 4
const TYPE = word(Slot.SLOT_TYPE_OFFSET)
const POLLING = word(Slot.SLOT_COMPLETION_POLLING_OFFSET)
const DIRECTION = word(Slot.REQUEST_DIRECTION_OFFSET)
const ADDRESS = word(Slot.REQUEST_ADDRESS_OFFSET)
const SIZE = word(Slot.REQUEST_SIZE_OFFSET)
const VALUE = word(Slot.REQUEST_VALUE_OFFSET)
const PCI_BUS = word(Slot.REQUEST_PCI_BUS_OFFSET)
const PCI_DEVICE = word(Slot.REQUEST_PCI_DEVICE_OFFSET)
const PCI_FUNCTION = word(Slot.REQUEST_PCI_FUNCTION_OFFSET)
const PCI_REGISTER = word(Slot.REQUEST_PCI_REGISTER_OFFSET)

// High words of addresses from 2^52 on have a bit above the 20th.
const HIGH_WORD_END = 2 ** 20

/**
 * Whether the hypervisor polls for completion of this request instead of waiting for NOTIFY_REQUEST_FINISH.
 *
 * @category decoding
 * @since 0.1.0
 */
export const isPolled = (words: Int32Array): boolean => words[POLLING] !== 0

/**
 * Whether the words say that the guest writes. Only to be asked of words that {@link decode} accepted.
 *
 * @category decoding
 * @since 0.1.0
 */
export const isWrite = (words: Int32Array): boolean => words[DIRECTION] === Slot.DirectionCode.Write

/**
 * Drops the bits of a u32 above `size` bytes.
 *
 * @category values
 * @since 0.1.0
 */
export const narrow = (value: number, size: number): number =>
  size >= 4 ? value >>> 0 : (value & (1 << size * 8) - 1) >>> 0

/**
 * The request of a slot's words, or a sentence that says what is wrong with it.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = (words: Int32Array, vcpu: number): IoRequest | string => {
  const direction = words[DIRECTION]!
  if (direction !== Slot.DirectionCode.Read && direction !== Slot.DirectionCode.Write) {
    return `direction ${direction} is neither read (0) nor write (1)`
  }
  const size = words[SIZE]!
  if (words[SIZE + 1] !== 0 || (size !== 1 && size !== 2 && size !== 4 && size !== 8)) {
    return `size ${size} is not 1, 2, 4 or 8 bytes`
  }
  const writes = direction === Slot.DirectionCode.Write
  switch (words[TYPE]) {
    case Slot.RequestTypeCode.PortIo:
      return decodePort(words, vcpu as VcpuId, size, writes)
    case Slot.RequestTypeCode.Mmio:
    case Slot.RequestTypeCode.WriteProtected:
      return decodeMmio(words, vcpu as VcpuId, size, writes)
    case Slot.RequestTypeCode.PciConfig:
      return decodePci(words, vcpu as VcpuId, size, writes)
    default:
      return `type ${words[TYPE]} is none of port I/O (0), MMIO (1), PCI configuration (2), write protection (3)`
  }
}

const decodePort = (words: Int32Array, vcpu: VcpuId, size: 1 | 2 | 4 | 8, writes: boolean): IoRequest | string => {
  const port = words[ADDRESS]!
  if (size === 8) return "a port access cannot be 8 bytes wide"
  // Guard: cve-2016-9637
  if (words[ADDRESS + 1] !== 0 || port < 0 || port + size > PORT_SPACE_END) {
    return `port ${hex(port >>> 0)} with ${size} bytes is not inside the 65536 ports`
  }
  return writes
    ? { _tag: "PortWrite", vcpu, port: port as Port, size, value: narrow(words[VALUE]!, size) }
    : { _tag: "PortRead", vcpu, port: port as Port, size }
}

const decodeMmio = (words: Int32Array, vcpu: VcpuId, size: 1 | 2 | 4 | 8, writes: boolean): IoRequest | string => {
  const high = words[ADDRESS + 1]!
  const address = high * 2 ** 32 + (words[ADDRESS]! >>> 0)
  if (high < 0 || high >= HIGH_WORD_END || address + size > HIGH_WORD_END * 2 ** 32) {
    return `guest address with high word ${hex(high >>> 0)} is not below 2^52`
  }
  if (!writes) return { _tag: "MmioRead", vcpu, address: address as GuestAddress, size }
  const value = size === 8
    ? BigInt(words[VALUE + 1]! >>> 0) << 32n | BigInt(words[VALUE]! >>> 0)
    : BigInt(narrow(words[VALUE]!, size))
  return { _tag: "MmioWrite", vcpu, address: address as GuestAddress, size, value }
}

const decodePci = (words: Int32Array, vcpu: VcpuId, size: 1 | 2 | 4 | 8, writes: boolean): IoRequest | string => {
  const bus = words[PCI_BUS]! >>> 0
  const device = words[PCI_DEVICE]! >>> 0
  const fn = words[PCI_FUNCTION]! >>> 0
  const register = words[PCI_REGISTER]! >>> 0
  if (size === 8) return "a PCI configuration access cannot be 8 bytes wide"
  if (bus > 255 || device > 31 || fn > 7 || register > 0xfff || (register & 3) + size > 4) {
    return `PCI ${bus}:${device}.${fn} register ${hex(register)} with ${size} bytes does not exist`
  }
  return writes
    ? { _tag: "PciWrite", vcpu, bus, device, function: fn, register, size, value: narrow(words[VALUE]!, size) }
    : { _tag: "PciRead", vcpu, bus, device, function: fn, register, size }
}

/**
 * The low word of an answer, cut to the access; an answer of `undefined` is all-ones.
 *
 * @category encoding
 * @since 0.1.0
 */
export const lowWord = (value: IoValue, size: number): number => {
  if (typeof value === "number") return narrow(value, size)
  if (typeof value === "bigint") return narrow(Number(BigInt.asIntN(32, value)), size)
  return narrow(-1, size)
}

/**
 * The high word of an answer, which only accesses of 8 bytes have.
 *
 * @category encoding
 * @since 0.1.0
 */
export const highWord = (value: IoValue, size: number): number => {
  if (size !== 8) return 0
  if (typeof value === "number") return Math.floor(value / 2 ** 32) >>> 0
  if (typeof value === "bigint") return Number(BigInt.asUintN(32, value >> 32n))
  return 0xffff_ffff
}

/**
 * What the guest reads when a handler answered `value`: a bigint for MMIO, a number for the other spaces, cut to the
 * access; `undefined` for a write.
 *
 * @category encoding
 * @since 0.1.0
 */
export const guestReads = (request: IoRequest, value: IoValue): number | bigint | undefined => {
  if ("value" in request) return undefined
  const low = lowWord(value, request.size)
  return request._tag === "MmioRead" ? BigInt(highWord(value, request.size)) << 32n | BigInt(low) : low
}
