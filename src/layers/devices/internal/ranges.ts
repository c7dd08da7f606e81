/**
 * Ranges from a device's options, not yet checked: registering them refuses what is no range, as a typed error that
 * names the device.
 */
import type { IoRange } from "../../../domain/IoRange.ts"

const unchecked = (tag: "Port" | "Mmio", start: number, count: number): IoRange =>
  ({ _tag: tag, start, end: start + count - 1 }) as IoRange

/** `count` ports from `start` on. */
export const portsFrom = (start: number, count: number): IoRange => unchecked("Port", start, count)

/** `bytes` bytes of guest addresses from `start` on. */
export const mmioFrom = (start: number, bytes: number): IoRange => unchecked("Mmio", start, bytes)
