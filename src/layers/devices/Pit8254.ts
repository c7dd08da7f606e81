/**
 * The PC's interval timer: an Intel 8254 at ports 0x40 to 0x43, and the system control port 0x61 that belongs to its
 * counter 2.
 *
 * Facts: Intel 8254 data sheet (order number 231164), in `chips/Pit8254Counter.ts`; it runs at 1,193,182 Hz of guest
 * time. Counter 0 interrupts, counter 2's gate and output are in port 0x61, bits 0 and 5; bit 4 there toggles with
 * counter 1's memory refreshes, every 18 pulses (15.085 us), without the counter being programmed.
 *
 * Choices: each rise of counter 0's output makes the interrupt line low, then high, and it stays high until the next
 * rise, or until the guest's programming makes the output low. Only a rise that was counted out raises it, not that a
 * mode begins with its output high. Where the clock wakes devices late (time of the host), the rises that passed
 * meanwhile are one, and the next one comes at its own time; so are rises less than 20 us apart, which no guest could
 * serve. After a reset all counters stand still, as if no firmware had run.
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
import { nanosAt, Pit8254Chip, pulsesAt } from "./chips/Pit8254Chip.ts"
import type { Pit8254CounterView } from "./chips/Pit8254Counter.ts"
import { bytePorts } from "./internal/bytePorts.ts"
import { guestNanos, makeGuestTimer } from "./internal/guestTimer.ts"
import { makeIrqLine } from "./internal/irqLine.ts"

/**
 * `irq`: the line of counter 0 (default 0). `name`: how dispatch calls the device (default `pit`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly irq?: number | undefined
  readonly name?: string | undefined
}

const BASE = 0x40
const LAST = 0x43
const SYSTEM_CONTROL = 0x61
// A guest that programs a period of two pulses must not keep the host busy with 600,000 interrupts a second.
const BETWEEN_RISES_NANOS_MIN = 20_000

/**
 * The interval timer, seen from the host.
 *
 * @category services
 * @since 0.1.0
 */
export class Pit8254 extends Context.Service<Pit8254, {
  readonly name: string
  /** The three counters at this moment of guest time. */
  readonly counters: Effect.Effect<ReadonlyArray<Pit8254CounterView>>
}>()("upcall/layers/devices/Pit8254") {}

/**
 * Puts the timer into the machine until the scope closes. Fails with `Overlap` when another client owns one of its
 * ports.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<Pit8254["Service"], IoDispatcherError, IrqLines | Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { irq = 0, name = "pit" } = options
    const machine = yield* Machine
    const line = yield* makeIrqLine(machine, name, irq)
    let chip = new Pit8254Chip()

    const now = () => pulsesAt(guestNanos(machine))
    let lastRiseNanos = -Infinity
    const arm = () => {
      const rise = chip.counters[0].nextRise(now())
      timer.set(rise === Infinity ? Infinity : Math.max(nanosAt(rise), lastRiseNanos + BETWEEN_RISES_NANOS_MIN))
    }
    const timer = yield* makeGuestTimer(machine, () => {
      lastRiseNanos = guestNanos(machine)
      line.rise()
      arm()
    })

    yield* machine.onReset(Effect.sync(() => {
      chip = new Pit8254Chip()
      line.set(false)
      timer.set(Infinity)
    }))
    yield* machine.io.register({
      name,
      ranges: [IoRange.ports(BASE, LAST), IoRange.ports(SYSTEM_CONTROL, SYSTEM_CONTROL)],
      handle: bytePorts(
        (port) => port === SYSTEM_CONTROL ? chip.readSystemControl(now()) : chip.read(port - BASE, now()),
        (port, value) => {
          if (port === SYSTEM_CONTROL) return chip.writeSystemControl(value, now())
          if (chip.write(port - BASE, value, now()) === 0) {
            if (!chip.counters[0].out(now())) line.set(false)
            arm()
          }
        }
      )
    })
    return Pit8254.of({
      name,
      counters: Effect.sync(() => chip.counters.map((counter) => counter.view(now())))
    })
  })

/**
 * A timer for the machine that it is built for; each build makes another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Pit8254, IoDispatcherError, IrqLines | Machine> =>
  Layer.fresh(Layer.effect(Pit8254, make(options)))
