/**
 * The second parameter of SET_IRQLINE. Unlike the other structures it travels as a value in the register, not by
 * address. Source: `struct acrn_irqline_ops` of ACRN's hypervisor/include/public/acrn_common.h.
 *
 * @since 0.1.0
 */
import * as Field from "./Field.ts"
import * as Layout from "./Layout.ts"

/**
 * What to do with the line (`GSI_*` of acrn_common.h). A pulse is both edges in one call.
 *
 * @category constants
 * @since 0.1.0
 */
export const IrqLineOpCode = { High: 0, Low: 1, RisingPulse: 2, FallingPulse: 3 } as const

/**
 * `gsi` is the number of the global system interrupt, `op` an `IrqLineOpCode`.
 *
 * @category layouts
 * @since 0.1.0
 */
export const IrqLineWord = Layout.struct("acrn_irqline_ops", {
  gsi: Field.u32("gsi"),
  op: Field.u32("op")
})

/**
 * @category models
 * @since 0.1.0
 */
export type IrqLineWord = Layout.Value<typeof IrqLineWord>

/**
 * The word as the register holds it: `gsi` in bits 31..0, `op` in bits 63..32. Both are taken modulo 2^32.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toWord = (line: IrqLineWord): bigint => BigInt(line.op >>> 0) << 32n | BigInt(line.gsi >>> 0)

/**
 * The inverse of `toWord`; bits above 63 are ignored.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromWord = (word: bigint): IrqLineWord => ({
  gsi: Number(BigInt.asUintN(32, word)),
  op: Number(BigInt.asUintN(32, word >> 32n))
})
