/**
 * The memory of a User-Mode Linux kernel, mapped into this process: a physical address is an offset in it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import koffi from "koffi"
import { closeSync, constants, fstatSync, openSync } from "node:fs"
import { HsmError } from "./HsmError.ts"

const PROT_READ_WRITE = 3
const MAP_SHARED = 1
const MAP_FAILED = 0xffff_ffff_ffff_ffffn

const libc = koffi.load("libc.so.6")
const mmap: (at: null, bytes: number, protection: number, flags: number, fd: number, offset: number) => bigint = libc
  .func("void* mmap(void*, size_t, int, int, int, long)")
const munmap: (at: bigint, bytes: number) => number = libc.func("int munmap(void*, size_t)")

const noMemory = (file: string, errno: number) => new HsmError({ reason: { _tag: "NoMemory", file, errno } })

interface Mapping {
  readonly address: bigint
  readonly buffer: ArrayBuffer
}

const map = (file: string): Mapping => {
  const fd = openSync(file, constants.O_RDWR)
  try {
    const bytes = fstatSync(fd).size
    const address = mmap(null, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0)
    if (address === MAP_FAILED) throw noMemory(file, koffi.errno())
    return { address, buffer: koffi.view(address, bytes) }
  } finally {
    closeSync(fd)
  }
}

const unmap = ({ address, buffer }: Mapping): void => {
  const bytes = buffer.byteLength
  // A view that somebody kept is empty from here on, instead of a door to unmapped memory.
  buffer.transfer(0)
  munmap(address, bytes)
}

/** Maps the memory that the process `pid` has open as `descriptor`, until the scope closes. */
export const physicalMemory = (
  pid: number,
  descriptor: number
): Effect.Effect<Uint8Array<ArrayBuffer>, HsmError, Scope.Scope> => {
  const file = `/proc/${pid}/fd/${descriptor}`
  return Effect.map(
    Effect.acquireRelease(
      Effect.try({
        try: () => map(file),
        catch: (cause) => cause instanceof HsmError ? cause : noMemory(file, errnoOf(cause))
      }),
      (mapping) => Effect.sync(() => unmap(mapping))
    ),
    ({ buffer }) => new Uint8Array(buffer)
  )
}

const errnoOf = (cause: unknown): number =>
  typeof cause === "object" && cause !== null && "errno" in cause && typeof cause.errno === "number"
    ? Math.abs(cause.errno)
    : 0
