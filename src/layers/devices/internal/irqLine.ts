/**
 * One interrupt line of one VM, as its only driver sees it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { IrqLines } from "../../../services/Hypervisor.ts"
import { IoDispatcherError } from "../../../services/IoDispatcher.ts"
import type { Machine } from "../../../services/Machine.ts"

export class IrqLine {
  private isHigh = false
  private readonly drive: (high: boolean) => void

  constructor(drive: (high: boolean) => void) {
    this.drive = drive
  }

  get high(): boolean {
    return this.isHigh
  }

  /** Drives the line to a level; nothing happens when it has it. */
  set(high: boolean): void {
    if (high === this.isHigh) return
    this.isHigh = high
    this.drive(high)
  }

  /**
   * A rising edge, whatever the level was: low, then high. The line stays high, because some interrupt controllers
   * forget an edge whose line falls before the vCPU takes the interrupt.
   */
  rise(): void {
    this.set(false)
    this.set(true)
  }
}

/** The line, low now and again once the scope closes. Fails with `NoSuchLine`, naming the device. */
export const makeIrqLine = (
  machine: Machine["Service"],
  device: string,
  irq: number
): Effect.Effect<IrqLine, IoDispatcherError, IrqLines | Scope.Scope> =>
  Effect.flatMap(IrqLines, (lines) =>
    Number.isInteger(irq) && irq >= 0 && irq < lines.count
      ? Effect.acquireRelease(
        Effect.sync(() => new IrqLine((high) => lines.set(machine.vmId, irq, high))),
        (line) => Effect.sync(() => line.set(false))
      )
      : Effect.fail(
        new IoDispatcherError({ reason: { _tag: "NoSuchLine", client: device, line: irq, lines: lines.count } })
      ))
