/**
 * The ids of ACRN's hypercalls: `0x80 << 24 | number`, kept as unsigned numbers (0x8000_0000 and above), never
 * negative. Source: Linux's drivers/virt/acrn/hypercall.h and ACRN's hypervisor/include/public/acrn_common.h.
 *
 * @since 0.1.0
 */

/**
 * The high byte of every id (`HC_ID`).
 *
 * @category constants
 * @since 0.1.0
 */
export const HYPERCALL_ID_BASE = 0x80

/**
 * The id of a hypercall's number (the low 24 bits), as `_HC_ID(HC_ID, number)`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromNumber = (number: number): number => (HYPERCALL_ID_BASE << 24 | number & 0xff_ffff) >>> 0

/**
 * The number of an id, or `undefined` for a word that is not a hypercall id.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toNumber = (id: number): number | undefined =>
  id >= 0 && id <= 0xffff_ffff && id >>> 24 === HYPERCALL_ID_BASE ? id & 0xff_ffff : undefined

/**
 * The nine hypercalls of this version, and SET_IRQLINE, an extension that a layer may lack. Compare with `===`; for a
 * 64-bit register use `BigInt(id)`.
 *
 * @category constants
 * @since 0.1.0
 */
export const HypercallId = {
  CreateVm: fromNumber(0x10),
  DestroyVm: fromNumber(0x11),
  StartVm: fromNumber(0x12),
  PauseVm: fromNumber(0x13),
  ResetVm: fromNumber(0x15),
  SetVcpuRegs: fromNumber(0x16),
  SetIrqLine: fromNumber(0x25),
  SetIoRequestBuffer: fromNumber(0x30),
  NotifyRequestFinish: fromNumber(0x31),
  SetMemoryRegions: fromNumber(0x42)
} as const

/**
 * The name of an id in `HypercallId`, or `undefined`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const nameOf = (id: number): keyof typeof HypercallId | undefined => names.get(id)

const names = new Map(Object.entries(HypercallId).map(([name, id]) => [id, name as keyof typeof HypercallId]))
