/**
 * The ports through which a guest reboots a PC: keyboard controller (0x60, 0x64), fast reset (0x92) and chipset (0xCF9).
 * A reset through any of them ends the guest with `ResetRequested`; to reboot, the VM's owner resets it.
 *
 * There is no keyboard behind the keyboard controller, and Linux finds out quickly; see `chips/ResetChip.ts` for the
 * facts. Address line 20 is always on.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { KEYBOARD_COMMAND, KEYBOARD_DATA, RESET_CONTROL, ResetChip, SYSTEM_CONTROL_A } from "./chips/ResetChip.ts"
import { bytePorts } from "./internal/bytePorts.ts"

/**
 * `name`: how dispatch calls the device (default `reset`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
}

/**
 * The reset ports.
 *
 * @category services
 * @since 0.1.0
 */
export class ResetControl extends Context.Service<ResetControl, {
  readonly name: string
}>()("upcall/layers/devices/ResetControl") {}

const ports = [KEYBOARD_DATA, KEYBOARD_COMMAND, SYSTEM_CONTROL_A, RESET_CONTROL]

/**
 * Puts the ports into the machine until the scope closes. Fails with `Overlap` when another client owns one of them.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<ResetControl["Service"], IoDispatcherError, Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { name = "reset" } = options
    const machine = yield* Machine
    let chip = new ResetChip()
    let source: string | undefined
    const serve = bytePorts((port) => chip.read(port), (port, value) => {
      source = chip.write(port, value)
    })

    yield* machine.onReset(Effect.sync(() => {
      chip = new ResetChip()
    }))
    yield* machine.io.register({
      name,
      ranges: ports.map((port) => IoRange.ports(port, port)),
      handle: (request: IoRequest) => {
        source = undefined
        const answer = serve(request)
        return source === undefined ? answer : machine.end({ _tag: "ResetRequested", source })
      }
    })
    return ResetControl.of({ name })
  })

/**
 * Reset ports for the machine that they are built for; each build makes others.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<ResetControl, IoDispatcherError, Machine> =>
  Layer.fresh(Layer.effect(ResetControl, make(options)))
