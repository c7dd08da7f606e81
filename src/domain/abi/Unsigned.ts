/**
 * Unsigned integers of the widths that ABI structures have, as schemas. Up to 32 bits they are numbers, 64 bits are a
 * bigint.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * 0 to 65,535.
 *
 * @category schemas
 * @since 0.1.0
 */
export const U16 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff }))

/**
 * 0 to 4,294,967,295.
 *
 * @category schemas
 * @since 0.1.0
 */
export const U32 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff }))

/**
 * 0 to 2^64 - 1.
 *
 * @category schemas
 * @since 0.1.0
 */
export const U64 = Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 0xffff_ffff_ffff_ffffn }))
