/**
 * One port access and one MMIO access of a guest on KVM, inline: from the guest through page, dispatcher and an
 * `Effect.sync`, and back. The peer is a loop around KVM_RUN in C that runs the same guest.
 */
import { type Figure, measurement } from "./harness.ts"
import { whereKvm } from "./kvm/bareMachine.ts"
import { compareExits, EXITS_PER_ROUND, overhead, overheads } from "./kvm/exits.ts"
import type { LoopName } from "./kvm/guest.ts"

const exitFigure = (metric: string, loop: LoopName, aim?: Figure["aim"]): Figure => ({
  metric,
  unit: "ns",
  ...aim === undefined ? {} : { aim },
  run: () =>
    whereKvm(async (bare) => {
      const compared = await compareExits(bare, loop)
      return measurement(compared, "bare loop in C, same guest", {
        scale: 1 / EXITS_PER_ROUND,
        details: { overheadNs: Math.round(overhead(compared)) }
      })
    })
})

export const portFigure: Figure = exitFigure("kvm.pio_exit_ns", "port", { of: "ratio", atMost: 1.12 })

export const mmioFigure: Figure = exitFigure("kvm.mmio_exit_ns", "mmio")

export const overheadFigure: Figure = {
  metric: "kvm.pio_overhead_ns",
  unit: "ns",
  aim: { of: "value", atMost: 700 },
  run: () =>
    whereKvm(async (bare) => {
      const compared = await compareExits(bare, "port")
      return { value: overhead(compared), samples: overheads(compared) }
    })
}
