/**
 * A countdown timer behind four 32-bit registers in memory-mapped I/O: the device under test. README.md has its data
 * sheet, and the story of the mistake that it was written with.
 */
import { Duration, Effect, FiberHandle, type Scope } from "effect"
import * as IoRange from "upcall/domain/IoRange"
import type { IoRequest, IoValue } from "upcall/domain/IoRequest"
import { IrqLines } from "upcall/services/Hypervisor"
import type { IoDispatcherError } from "upcall/services/IoDispatcher"
import { Machine } from "upcall/services/Machine"

/** Offsets of the registers. */
export const Register = { LOAD: 0x0, VALUE: 0x4, CTRL: 0x8, STATUS: 0xc } as const

/** Bits of CTRL. */
export const Control = { ENABLE: 1, PERIODIC: 2, INTERRUPT: 4 } as const

/** Bits of STATUS. */
export const Status = { EXPIRED: 1 } as const

/** `base`: the address of the first register. `irq`: the interrupt line. */
export interface Options {
  readonly base: number
  readonly irq: number
}

/** Puts a timer into the machine until the scope closes. */
export const make = (
  { base, irq }: Options
): Effect.Effect<void, IoDispatcherError, IrqLines | Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const machine = yield* Machine
    const lines = yield* IrqLines
    const counting = yield* FiberHandle.make<void>()
    const nanos = () => Number(machine.time.clock.monotonicTimeNanosUnsafe())

    let load = 0
    let ctrl = 0
    let status = 0
    let began = 0

    const has = (bit: number) => (ctrl & bit) !== 0
    const value = () => has(Control.ENABLE) ? Math.ceil(load - (nanos() - began) / 1000) : 0
    const driveLine = () => lines.set(machine.vmId, irq, has(Control.INTERRUPT) && (status & Status.EXPIRED) !== 0)

    const stop = Effect.sync(() => {
      ctrl &= ~Control.ENABLE
    })
    const count: Effect.Effect<void> = Effect.suspend(() => {
      if (load === 0) return stop
      began = nanos()
      return Effect.andThen(Effect.sleep(Duration.micros(BigInt(load))), expire)
    })
    const expire = Effect.suspend(() => {
      status |= Status.EXPIRED
      driveLine()
      return has(Control.PERIODIC) ? count : stop
    })

    const setControl = (bits: number): Effect.Effect<void> => {
      const wasEnabled = has(Control.ENABLE)
      ctrl = bits & (Control.ENABLE | Control.PERIODIC | Control.INTERRUPT)
      driveLine()
      if (!has(Control.ENABLE)) return FiberHandle.clear(counting)
      return wasEnabled ? Effect.void : Effect.asVoid(FiberHandle.run(counting, count))
    }

    const read = (offset: number): number | undefined => {
      switch (offset) {
        case Register.LOAD:
          return load
        case Register.VALUE:
          return value()
        case Register.CTRL:
          return ctrl
        case Register.STATUS:
          return status
        default:
          return undefined
      }
    }

    const write = (offset: number, word: number): Effect.Effect<void> => {
      switch (offset) {
        case Register.LOAD:
          load = word
          return Effect.void
        case Register.CTRL:
          return setControl(word)
        case Register.STATUS:
          status &= ~word
          driveLine()
          return Effect.void
        default:
          return Effect.void
      }
    }

    yield* machine.onReset(Effect.suspend(() => {
      load = 0
      status = 0
      return setControl(0)
    }))
    yield* Effect.addFinalizer(() => Effect.sync(() => lines.set(machine.vmId, irq, false)))
    yield* machine.io.register({
      name: "timer",
      ranges: [IoRange.mmio(base, base + 0xf)],
      // Only whole registers can be reached; anything else reads as all-ones, and writes nothing.
      handle: (request: IoRequest): Effect.Effect<IoValue> => {
        if (request._tag === "MmioRead" && request.size === 4) return Effect.succeed(read(request.address - base))
        if (request._tag === "MmioWrite" && request.size === 4) {
          return Effect.as(write(request.address - base, Number(request.value)), undefined)
        }
        return Effect.succeed(undefined)
      }
    })
  })
