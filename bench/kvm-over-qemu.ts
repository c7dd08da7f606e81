/**
 * A read of a port on KVM as the guest sees it, in cycles of its own time stamp counter: under Upcall, inline, divided by
 * that under QEMU. Both run the same image. `bareCycles` is what a VMM with nothing in it reaches.
 */
import * as Effect from "effect/Effect"
import * as IoRange from "../src/domain/IoRange.ts"
import type { IoValue } from "../src/domain/IoRequest.ts"
import * as Kvm from "../src/layers/Kvm.ts"
import { type Figure, median, QUICK } from "./harness.ts"
import { type BareKvm, type Guest, whereKvm } from "./kvm/bareMachine.ts"
import { load, on } from "./kvm/ourMachine.ts"
import { type QemuGuest, startQemu } from "./kvm/qemu.ts"
import { ADDRESS, cyclesOf, ENTRY, image, SAMPLE_BYTES, SAMPLE_PORT } from "./kvm/timedGuest.ts"

const timedGuest: Guest = { image, address: ADDRESS, entry: ENTRY, memoryBytes: 2 << 20 }

const { samples, turns } = QUICK in process.env ? { samples: 16, turns: 3 } : { samples: 100, turns: 15 }

type Samples = (count: number) => Promise<ReadonlyArray<number>> | ReadonlyArray<number>

/** Starts the guest with a client like QEMU's debug console; it stands still between samples. */
const startOurs = Effect.gen(function*() {
  const vm = yield* load(timedGuest)
  let told: Array<number> = []
  let wanted = SAMPLE_BYTES
  let done: (told: ReadonlyArray<number>) => void = () => undefined
  let go: () => void = () => undefined
  const held = Effect.callback<IoValue>((resume) => {
    go = () => resume(Effect.undefined)
    done(cyclesOf(Uint8Array.from(told)))
  })
  const answer = Effect.sync(() => SAMPLE_PORT)
  yield* vm.io.register({
    name: "debug console",
    ranges: [IoRange.ports(SAMPLE_PORT, SAMPLE_PORT)],
    handle: (request) => {
      if (request._tag !== "PortWrite") return answer
      told.push(request.value)
      return told.length === wanted ? held : Effect.undefined
    }
  })
  const first = new Promise((resolve) => {
    done = resolve
  })
  yield* vm.start
  yield* Effect.promise(() => first)
  const next: Samples = (count) =>
    new Promise((resolve) => {
      told = []
      wanted = count * SAMPLE_BYTES
      done = resolve
      go()
    })
  return next
})

const measure = (bare: BareKvm, qemu: QemuGuest) =>
  on(
    Kvm.layer,
    Effect.gen(function*() {
      const machine = bare.open(timedGuest)
      const vmms = {
        ours: yield* startOurs,
        qemu: (count: number) => qemu.samples(count),
        bare: (count: number) => cyclesOf(machine.timed(count * SAMPLE_BYTES))
      }
      const cycles = { ours: new Array<number>(), qemu: new Array<number>(), bare: new Array<number>() }
      for (let turn = 0; turn < turns; turn++) {
        for (const vmm of ["ours", "qemu", "bare"] as const) {
          cycles[vmm].push(median(yield* Effect.promise(async () => vmms[vmm](samples))))
        }
      }
      machine.close()
      return {
        value: median(cycles.ours),
        peer: { name: "QEMU with KVM, same image", value: median(cycles.qemu) },
        best: { value: Math.min(...cycles.ours), peer: Math.min(...cycles.qemu) },
        samples: cycles.ours,
        details: { bareCycles: Math.round(median(cycles.bare)), qemu: qemu.version }
      }
    })
  )

export const figure: Figure = {
  metric: "kvm.exit_over_qemu",
  unit: "cycles",
  aim: { of: "ratio", atMost: 0.9 },
  run: () =>
    whereKvm(async (bare) => {
      const qemu = startQemu()
      if (typeof qemu === "string") return { skipped: qemu }
      try {
        return await measure(bare, qemu)
      } finally {
        qemu.close()
      }
    })
}
