/**
 * The devices that a small PC guest, or Linux on a serial console, expects: COM1, interval timer, real-time clock, reset
 * ports, diagnostic port, an empty PCI bus, and the exit port of tests. On request a scratch register file.
 *
 * The interrupt controllers belong to the hypervisor layer.
 *
 * **Example** (A PC with a console)
 *
 * ```ts
 * const pc = yield* vm.attach(StandardPc.make())
 * yield* pc.uart.send("root\n")
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { IrqLines } from "../../services/Hypervisor.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import type { Machine } from "../../services/Machine.ts"
import * as DebugExit from "./DebugExit.ts"
import * as MmioScratch from "./MmioScratch.ts"
import * as PciConfigSpace from "./PciConfigSpace.ts"
import * as Pit8254 from "./Pit8254.ts"
import * as PostCode from "./PostCode.ts"
import * as ResetControl from "./ResetControl.ts"
import * as Rtc146818 from "./Rtc146818.ts"
import * as Uart16550 from "./Uart16550.ts"

/**
 * Options of the devices, each with its own defaults. `scratch`: also puts in an `MmioScratch`; `{}` for its defaults.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly uart?: Uart16550.Options | undefined
  readonly pit?: Pit8254.Options | undefined
  readonly rtc?: Rtc146818.Options | undefined
  readonly debugExit?: DebugExit.Options | undefined
  readonly scratch?: MmioScratch.Options | undefined
}

/**
 * The devices of one PC.
 *
 * @category services
 * @since 0.1.0
 */
export class StandardPc extends Context.Service<StandardPc, {
  /** The console. */
  readonly uart: Uart16550.Uart16550["Service"]
  readonly pit: Pit8254.Pit8254["Service"]
  readonly rtc: Rtc146818.Rtc146818["Service"]
  readonly pci: PciConfigSpace.PciConfigSpace["Service"]
  readonly reset: ResetControl.ResetControl["Service"]
  readonly postCode: PostCode.PostCode["Service"]
  readonly debugExit: DebugExit.DebugExit["Service"]
  /** There when it was asked for. */
  readonly scratch: MmioScratch.MmioScratch["Service"] | undefined
}>()("upcall/layers/devices/StandardPc") {}

/** What was put in before a failure is taken out again. */
const allOrNothing = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Scope.fork(yield* Effect.scope)
    return yield* self.pipe(
      Scope.provide(scope),
      Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit))
    )
  })

/**
 * Puts the devices into the machine until the scope closes. Fails with `Overlap`, and none of them is there, when
 * another client owns a port or address of theirs.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<StandardPc["Service"], IoDispatcherError, IrqLines | Machine | Scope.Scope> =>
  allOrNothing(Effect.gen(function*() {
    const uart = yield* Uart16550.make(options.uart)
    const pit = yield* Pit8254.make(options.pit)
    const rtc = yield* Rtc146818.make(options.rtc)
    const pci = yield* PciConfigSpace.make()
    const reset = yield* ResetControl.make()
    const postCode = yield* PostCode.make()
    const debugExit = yield* DebugExit.make(options.debugExit)
    const scratch = options.scratch === undefined ? undefined : yield* MmioScratch.make(options.scratch)
    return StandardPc.of({ uart, pit, rtc, pci, reset, postCode, debugExit, scratch })
  }))

/**
 * A PC's devices for the machine that they are built for; each build makes others.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<StandardPc, IoDispatcherError, IrqLines | Machine> =>
  Layer.fresh(Layer.effect(StandardPc, make(options)))
