/**
 * The diagnostic port 0x80, where firmware leaves its progress, and where Linux writes once per slow port access to wait
 * about a microsecond (arch/x86/kernel/io_delay.c). It answers at once and remembers the last byte.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { bytePorts } from "./internal/bytePorts.ts"
import { portsFrom } from "./internal/ranges.ts"

/**
 * `port`: 0 to 0xFFFF (default 0x80). `name`: how dispatch calls the device (default `post-code`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly port?: number | undefined
  readonly name?: string | undefined
}

/**
 * The diagnostic port, seen from the host.
 *
 * @category services
 * @since 0.1.0
 */
export class PostCode extends Context.Service<PostCode, {
  readonly name: string
  /** The last byte written, 0 to 255; 0 before. The guest reads the same. */
  readonly code: Effect.Effect<number>
}>()("upcall/layers/devices/PostCode") {}

/**
 * Puts the port into the machine until the scope closes. Fails with `Overlap` when another client owns it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<PostCode["Service"], IoDispatcherError, Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { name = "post-code", port = 0x80 } = options
    const machine = yield* Machine
    let code = 0
    yield* machine.onReset(Effect.sync(() => {
      code = 0
    }))
    yield* machine.io.register({
      name,
      ranges: [portsFrom(port, 1)],
      handle: bytePorts(() => code, (_, value) => {
        code = value
      })
    })
    return PostCode.of({ name, code: Effect.sync(() => code) })
  })

/**
 * A diagnostic port for the machine that it is built for; each build makes another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<PostCode, IoDispatcherError, Machine> =>
  Layer.fresh(Layer.effect(PostCode, make(options)))
