/**
 * The PC's real-time clock and CMOS memory: a Motorola MC146818 at ports 0x70 (index) and 0x71 (data).
 *
 * Facts: Motorola MC146818 data sheet, in `chips/Rtc146818Chip.ts`. The clock starts at the guest Clock's wall time, in
 * UTC, and goes on with guest time; when the guest sets it, the difference stays. It interrupts for alarms, periods and
 * updates, and asks for wake-ups only while one of them is enabled and the last was acknowledged.
 *
 * Choices: an update takes no time, so update-in-progress is shown only for the 244 us before it. The day of the week
 * follows from the date. Index bit 7 (NMI mask) and daylight saving have no effect. CMOS holds the memory sizes that
 * firmware would put there, no checksums, and keeps what the guest writes until the device goes; a reset turns the
 * interrupts off and leaves time and memory alone.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as IoRange from "../../domain/IoRange.ts"
import type { IrqLines } from "../../services/Hypervisor.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { Rtc146818Chip } from "./chips/Rtc146818Chip.ts"
import { bytePorts } from "./internal/bytePorts.ts"
import { guestNanos, makeGuestTimer } from "./internal/guestTimer.ts"
import { makeIrqLine } from "./internal/irqLine.ts"

/**
 * `irq`: the interrupt line (default 8). `name`: how dispatch calls the device (default `rtc`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly irq?: number | undefined
  readonly name?: string | undefined
}

const BASE = 0x70
const LAST = 0x71
const NANOS_PER_SECOND = 1_000_000_000n

/**
 * The clock, seen from the host.
 *
 * @category services
 * @since 0.1.0
 */
export class Rtc146818 extends Context.Service<Rtc146818, {
  readonly name: string
  /** The time that the guest reads, in milliseconds since 1970, a multiple of 1000. */
  readonly shownMillis: Effect.Effect<number>
}>()("upcall/layers/devices/Rtc146818") {}

/**
 * Puts the clock into the machine until the scope closes. Fails with `Overlap` when another client owns one of its
 * ports.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<Rtc146818["Service"], IoDispatcherError, IrqLines | Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { irq = 8, name = "rtc" } = options
    const machine = yield* Machine
    const line = yield* makeIrqLine(machine, name, irq)
    const now = () => guestNanos(machine)

    const wallNanos = machine.time.clock.currentTimeNanosUnsafe()
    const chip = new Rtc146818Chip({
      seconds: Number(wallNanos / NANOS_PER_SECOND),
      since: now() - Number(wallNanos % NANOS_PER_SECOND),
      now: now(),
      memoryBytes: machine.memoryBytes
    })

    const update = () => {
      const at = now()
      timer.set(chip.nextInterrupt(at))
      line.set(chip.interrupt)
    }
    const timer = yield* makeGuestTimer(machine, update)

    yield* machine.onReset(Effect.sync(() => {
      chip.reset(now())
      update()
    }))
    yield* machine.io.register({
      name,
      ranges: [IoRange.ports(BASE, LAST)],
      handle: bytePorts(
        (port) => {
          const value = chip.read(port - BASE, now())
          // Reading register C acknowledges, and other reads change nothing.
          if (line.high) update()
          return value
        },
        (port, value) => {
          chip.write(port - BASE, value, now())
          if (port !== BASE) update()
        }
      )
    })
    return Rtc146818.of({ name, shownMillis: Effect.sync(() => chip.shownMillis(now())) })
  })

/**
 * A clock for the machine that it is built for; each build makes another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Rtc146818, IoDispatcherError, IrqLines | Machine> =>
  Layer.fresh(Layer.effect(Rtc146818, make(options)))
