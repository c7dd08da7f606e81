/**
 * The second third of the seam: the Service VM's memory by physical address.
 *
 * It is an address space, not one buffer: a layer may back guest RAM from memory of its own (one wasm memory per VM, a
 * mapping shared with a kernel) at a window of service addresses. Access is checked and goes through methods, never
 * through raw views, so that dirty logs and code caches hear of writes and a detached buffer cannot bite.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { hex, type ServiceAddress } from "../domain/Address.ts"

/**
 * What memory is asked for. Only guest RAM belongs to a VM, whose id is then known (after CREATE_VM).
 *
 * @category models
 * @since 0.1.0
 */
export type MemoryPurpose =
  | { readonly _tag: "HypercallStructures" }
  | { readonly _tag: "IoRequestPage" }
  | { readonly _tag: "GuestRam"; readonly vmId: number }

/**
 * Memory that was given: service addresses `[address, address + bytes)`, page-aligned and zero-filled.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceRegion {
  readonly address: ServiceAddress
  readonly bytes: number
}

/**
 * One page of 4096 bytes for words that two parties share. Offsets are in bytes and multiples of 4.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServicePage {
  /** Reads a u32 (as a signed 32-bit number) with acquire order. */
  readonly load32: (offset: number) => number
  /** Writes a u32 with release order: everything written before it is seen by whoever reads it. */
  readonly store32: (offset: number, value: number) => void
  /**
   * Copies what a request slot says, once: the bytes 0 to 7 (type, polling) and 64 to 127 (the request) of the slot
   * that begins at `offset`, to the same word places of `words`.
   */
  readonly fetchRequest: (offset: number, words: Int32Array) => void
  /** The hypervisor's side of it: writes the same words of `words` to the slot at `offset`, the state not among them. */
  readonly storeRequest: (offset: number, words: Int32Array) => void
}

/**
 * - `OutOfRange`: `[address, address + bytes)` is not wholly inside memory that was given.
 * - `NotPage`: an address that had to be a page's begin is not aligned.
 * - `NoMemory`: the layer has not that much memory.
 * - `BadRequest`: the size asked for is no positive multiple of 4096, or its purpose does not fit the layer.
 *
 * @category errors
 * @since 0.1.0
 */
export const ServiceMemoryErrorReason = Schema.TaggedUnion({
  OutOfRange: { address: Schema.Number, bytes: Schema.Number },
  NotPage: { address: Schema.Number },
  NoMemory: { bytes: Schema.Number, available: Schema.Number },
  BadRequest: { bytes: Schema.Number, problem: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type ServiceMemoryErrorReason = typeof ServiceMemoryErrorReason.Type

/**
 * Service VM memory that is not there, or not as asked. Nothing was read or written.
 *
 * @category errors
 * @since 0.1.0
 */
export class ServiceMemoryError
  extends Schema.TaggedError<ServiceMemoryError>()("ServiceMemoryError", { reason: ServiceMemoryErrorReason })
{
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "OutOfRange":
        return `${reason.bytes} bytes at service address ${hex(reason.address)} are not wholly inside allocated ` +
          "Service VM memory; use addresses of a region that ServiceMemory.allocate gave and that is not yet released"
      case "NotPage":
        return `service address ${hex(reason.address)} is not where a page begins; it must be a multiple of 0x1000`
      case "NoMemory":
        return `${reason.bytes} bytes of Service VM memory were asked for but only ${reason.available} are left; ` +
          "ask for less, or give the layer more"
      case "BadRequest":
        return `Service VM memory of ${reason.bytes} bytes cannot be given: ${reason.problem}`
    }
  }
}

/**
 * The Service VM's physical address space.
 *
 * @category services
 * @since 0.1.0
 */
export class ServiceMemory extends Context.Service<ServiceMemory, {
  /** Gives zero-filled pages until the scope closes. `bytes` is a positive multiple of 4096. */
  readonly allocate: (
    request: { readonly bytes: number; readonly purpose: MemoryPurpose }
  ) => Effect.Effect<ServiceRegion, ServiceMemoryError, Scope.Scope>
  /** The page that begins at `address`. */
  readonly page: (address: number) => Result.Result<ServicePage, ServiceMemoryError>
  /** Copies `[address, address + into.length)` out. */
  readonly read: (address: number, into: Uint8Array) => Result.Result<void, ServiceMemoryError>
  /** Copies `from` in at `address`. Code caches over these pages hear of it. */
  readonly write: (address: number, from: Uint8Array) => Result.Result<void, ServiceMemoryError>
}>()("upcall/services/ServiceMemory") {}
