/**
 * A port that ends the guest: what a test or a unikernel writes to it becomes its exit status.
 *
 * A write of any size ends the guest with the value's low byte as status, unchanged. (QEMU's isa-debug-exit, which this
 * stands in for, ends its own process with `value << 1 | 1`, so a guest written for it exits here with the value that
 * it wrote.) Reads give all-ones.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { allOnes } from "./internal/bytePorts.ts"
import { portsFrom } from "./internal/ranges.ts"

/**
 * `port`: the first of four ports, so that a write of any size fits, 0 to 0xFFFC (default 0xF4). `name`: how dispatch
 * calls the device (default `debug-exit`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly port?: number | undefined
  readonly name?: string | undefined
}

const PORTS = 4

/**
 * The exit port, seen from the host.
 *
 * @category services
 * @since 0.1.0
 */
export class DebugExit extends Context.Service<DebugExit, {
  readonly name: string
  /** Waits for the guest's exit, and gives its first status, 0 to 255. After a reset it is that of the new life. */
  readonly exit: Effect.Effect<number>
}>()("upcall/layers/devices/DebugExit") {}

/**
 * Puts the port into the machine until the scope closes. Fails with `Overlap` when another client owns one of its four
 * ports.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<DebugExit["Service"], IoDispatcherError, Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { name = "debug-exit", port = 0xf4 } = options
    const machine = yield* Machine
    let exit = Deferred.makeUnsafe<number>()
    yield* machine.onReset(Effect.sync(() => {
      if (Deferred.isDoneUnsafe(exit)) exit = Deferred.makeUnsafe()
    }))
    yield* machine.io.register({
      name,
      ranges: [portsFrom(port, PORTS)],
      handle: (request) => {
        if (request._tag !== "PortWrite") return allOnes
        const status = request.value & 0xff
        return Effect.andThen(Deferred.succeed(exit, status), machine.end({ _tag: "Exited", status }))
      }
    })
    return DebugExit.of({ name, exit: Effect.suspend(() => Deferred.await(exit)) })
  })

/**
 * An exit port for the machine that it is built for; each build makes another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<DebugExit, IoDispatcherError, Machine> =>
  Layer.fresh(Layer.effect(DebugExit, make(options)))
