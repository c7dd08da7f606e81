/**
 * A PC serial port: a 16550A UART whose line is a `Stream` and a `Sink`.
 *
 * Facts: National Semiconductor PC16550D data sheet; what Linux asks of a port it probes is in its
 * drivers/tty/serial/8250/8250_port.c. The registers themselves are in `chips/Uart16550Chip.ts`.
 *
 * Choices: transmission takes no guest time, so a guest that waits for an empty transmitter never waits. OUT2 of the
 * modem control register does not gate the interrupt, as it does on PC cards: guests that were only run on emulators
 * leave it off, and guests that know of it set it. Accesses of 2 and 4 bytes are byte accesses to consecutive registers.
 *
 * **Example** (A console on the terminal's output)
 *
 * ```ts
 * const uart = yield* vm.attach(Uart16550.make())
 * yield* uart.send("uname -a\n")
 * yield* Stream.runForEach(uart.output, (bytes) => Effect.sync(() => process.stdout.write(bytes)))
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { IrqLines } from "../../services/Hypervisor.ts"
import type { IoDispatcherError } from "../../services/IoDispatcher.ts"
import { Machine } from "../../services/Machine.ts"
import { Uart16550Chip } from "./chips/Uart16550Chip.ts"
import { bytePorts } from "./internal/bytePorts.ts"
import { makeIrqLine } from "./internal/irqLine.ts"
import { portsFrom } from "./internal/ranges.ts"

// The web platform's encoder, which every runtime has; `lib` holds no DOM here.
declare const TextEncoder: new() => { readonly encode: (text: string) => Uint8Array }

/**
 * `base`: the first of eight ports, 0 to 0xFFF8 (default 0x3F8, COM1). `irq`: the interrupt line (default 4). `name`:
 * how dispatch calls the device (default `uart0`). `onOutput`: takes each byte as the guest writes it, in the vCPU's
 * stack, instead of `output`, which is empty then.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly base?: number | undefined
  readonly irq?: number | undefined
  readonly name?: string | undefined
  readonly onOutput?: ((byte: number) => void) | undefined
}

/**
 * Queued input above which {@link Uart16550.input} waits for the guest, in bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const INPUT_BYTES_MAX = 65_536

const REGISTERS = 8

/**
 * A serial port's line, seen from the host.
 *
 * @category services
 * @since 0.1.0
 */
export class Uart16550 extends Context.Service<Uart16550, {
  readonly name: string
  /**
   * What the guest writes, from the device's making on; it ends when the device goes. Nothing is dropped: bytes that
   * nobody reads are kept, at about 8 bytes of memory each. For one reader at a time; share it with `Stream.broadcast`.
   */
  readonly output: Stream.Stream<Uint8Array>
  /**
   * Types into the guest, and waits while more than {@link INPUT_BYTES_MAX} bytes are not taken. Nothing is dropped on
   * the way; what the guest does with its FIFO, such as emptying it as a driver starts, is the guest's.
   */
  readonly input: Sink.Sink<void, Uint8Array>
  /**
   * Types bytes, or text as UTF-8, without waiting for the guest to take them. Once the device is gone it does nothing.
   */
  readonly send: (input: Uint8Array | string) => Effect.Effect<void>
}>()("upcall/layers/devices/Uart16550") {}

/**
 * Puts a serial port into the machine until the scope closes. Fails with `Overlap` when another client owns one of its
 * ports.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<Uart16550["Service"], IoDispatcherError, IrqLines | Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { base = 0x3f8, irq = 4, name = "uart0", onOutput } = options
    const machine = yield* Machine
    const line = yield* makeIrqLine(machine, name, irq)
    const output = yield* Effect.acquireRelease(Queue.unbounded<number, Cause.Done>(), Queue.end)

    const chip = new Uart16550Chip({
      transmit: onOutput ?? ((byte) => void Queue.offerUnsafe(output, byte)),
      interrupt: (high) => line.set(high)
    })

    let waiting: Array<() => void> = []
    const wake = () => {
      const woken = waiting
      waiting = []
      for (const resume of woken) resume()
    }
    let isOpen = true
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        isOpen = false
        wake()
      })
    )

    yield* machine.onReset(Effect.sync(() => chip.reset()))
    yield* machine.io.register({
      name,
      ranges: [portsFrom(base, REGISTERS)],
      handle: bytePorts(
        (port) => {
          const value = chip.read(port - base)
          if (waiting.length > 0 && chip.backlogBytes <= INPUT_BYTES_MAX) wake()
          return value
        },
        (port, value) => chip.write(port - base, value)
      )
    })

    const send = (input: Uint8Array | string) =>
      Effect.sync(() => {
        if (isOpen) chip.receive(typeof input === "string" ? new TextEncoder().encode(input) : input)
      })
    const room = Effect.callback<void>((resume) => {
      if (!isOpen || chip.backlogBytes <= INPUT_BYTES_MAX) return resume(Effect.void)
      const waiter = () => resume(Effect.void)
      waiting.push(waiter)
      return Effect.sync(() => {
        waiting = waiting.filter((other) => other !== waiter)
      })
    })
    return Uart16550.of({
      name,
      output: onOutput === undefined
        ? Stream.mapArray(Stream.fromQueue(output), (bytes) => [Uint8Array.from(bytes)])
        : Stream.empty,
      input: Sink.forEach((bytes: Uint8Array) => Effect.andThen(send(bytes), room)),
      send
    })
  })

/**
 * A serial port for the machine that it is built for; each build makes another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Uart16550, IoDispatcherError, IrqLines | Machine> =>
  Layer.fresh(Layer.effect(Uart16550, make(options)))
