/**
 * A register file in memory-mapped I/O: what the guest stores, it loads back. For demonstrations and tests; the guest
 * in guests/hello touches it once.
 *
 * Accesses of 1, 2, 4 and 8 bytes at any alignment, little-endian. All bytes are 0 at first and after a reset.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { allOnes } from "./internal/bytePorts.ts"
import { mmioFrom } from "./internal/ranges.ts"

/**
 * `base`: the first guest physical address, outside of RAM (default 0xE0000000). `bytes`: the size, at least 1 (default
 * 4096). `name`: how dispatch calls the device (default `scratch`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly base?: number | undefined
  readonly bytes?: number | undefined
  readonly name?: string | undefined
}

/**
 * The register file, seen from the host.
 *
 * @category services
 * @since 0.1.0
 */
export class MmioScratch extends Context.Service<MmioScratch, {
  readonly name: string
  /** A copy of all bytes. */
  readonly contents: Effect.Effect<Uint8Array>
}>()("upcall/layers/devices/MmioScratch") {}

const load = (view: DataView, offset: number, size: 1 | 2 | 4 | 8): number | bigint => {
  switch (size) {
    case 1:
      return view.getUint8(offset)
    case 2:
      return view.getUint16(offset, true)
    case 4:
      return view.getUint32(offset, true)
    case 8:
      return view.getBigUint64(offset, true)
  }
}

const store = (view: DataView, offset: number, size: 1 | 2 | 4 | 8, value: bigint): void => {
  switch (size) {
    case 1:
      return view.setUint8(offset, Number(value))
    case 2:
      return view.setUint16(offset, Number(value), true)
    case 4:
      return view.setUint32(offset, Number(value), true)
    case 8:
      return view.setBigUint64(offset, value, true)
  }
}

/**
 * Puts the registers into the machine until the scope closes. Fails with `Overlap` when another client owns one of the
 * addresses, `BadRange` when they are none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<MmioScratch["Service"], IoDispatcherError, Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { base = 0xe000_0000, bytes = 4096, name = "scratch" } = options
    const machine = yield* Machine
    const range = mmioFrom(base, bytes)
    // A size that is none gets no memory here, and its range no client below.
    const contents = new Uint8Array(Number.isSafeInteger(bytes) && bytes > 0 ? bytes : 0)
    const view = new DataView(contents.buffer)

    yield* machine.onReset(Effect.sync(() => contents.fill(0)))
    yield* machine.io.register({
      name,
      ranges: [range],
      handle: (request: IoRequest): Effect.Effect<IoValue> => {
        switch (request._tag) {
          case "MmioRead":
            return Effect.succeed(load(view, request.address - base, request.size))
          case "MmioWrite":
            store(view, request.address - base, request.size, request.value)
            return allOnes
          default:
            return allOnes
        }
      }
    })
    return MmioScratch.of({ name, contents: Effect.sync(() => contents.slice()) })
  })

/**
 * Registers for the machine that they are built for; each build makes others.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<MmioScratch, IoDispatcherError, Machine> =>
  Layer.fresh(Layer.effect(MmioScratch, make(options)))
