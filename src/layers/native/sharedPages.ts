/**
 * Memory of this process that a kernel is given by its address.
 */
import { PAGE_BYTES } from "../../domain/Limits.ts"
import type { Libc } from "./Libc.ts"

/** Zero-filled whole pages that threads can share. */
export const sharedPages = (libc: Pick<Libc, "addressOf">, bytes: number): Uint8Array<SharedArrayBuffer> => {
  const buffer = new SharedArrayBuffer(bytes + PAGE_BYTES)
  const address = libc.addressOf(new Uint8Array(buffer))
  return new Uint8Array(buffer, Math.ceil(address / PAGE_BYTES) * PAGE_BYTES - address, bytes)
}
