/**
 * One port access of a guest whose vCPU has a thread of its own, from one call of the handler to the next, on the wall:
 * two threads wait for each other, so processor time says little. `cores` is what the process takes of processors
 * meanwhile.
 */
import * as Effect from "effect/Effect"
import * as Kvm from "../src/layers/Kvm.ts"
import { type Figure, median, QUICK } from "./harness.ts"
import { type BareKvm, whereKvm } from "./kvm/bareMachine.ts"
import { EXITS_PER_ROUND } from "./kvm/exits.ts"
import { device, loopGuest, on, start } from "./kvm/ourMachine.ts"

const { rounds, turns } = QUICK in process.env ? { rounds: 500, turns: 3 } : { rounds: 5000, turns: 11 }

/** What one sample of ours says. */
interface Sample {
  readonly p50: number
  readonly p99: number
  readonly cores: number
}

const NANOS = 1e6

const clock = (): number => performance.now() * NANOS

const startOurs = Effect.gen(function*() {
  const stamps = new Float64Array(EXITS_PER_ROUND * rounds)
  let count = 0
  const handle = device()
  const machine = yield* start({
    clock,
    handle: (request) => {
      stamps[count++] = clock()
      return handle(request)
    }
  })
  const run = machine.sampler("port")
  return async (): Promise<Sample> => {
    count = 0
    const began = process.cpuUsage()
    const nanos = await run(rounds)
    const { system, user } = process.cpuUsage(began)
    const times = stamps.subarray(1).map((stamp, i) => stamp - stamps[i]!).toSorted()
    const at = (part: number) => times[Math.floor(times.length * part)]!
    return { p50: at(0.5), p99: at(0.99), cores: (system + user) * 1e3 / nanos }
  }
})

const measure = (bare: BareKvm) =>
  on(
    Kvm.layerWith({ placement: "Worker" }),
    Effect.gen(function*() {
      const ours = yield* startOurs
      const machine = bare.open(loopGuest)
      const theirs = machine.sampler("port")
      const samples: Array<Sample> = []
      const peer: Array<number> = []
      // The first of each warms up.
      for (let turn = 0; turn <= turns; turn++) {
        const sample = yield* Effect.promise(ours)
        const nanos = (yield* Effect.promise(async () => theirs(rounds))) / (EXITS_PER_ROUND * rounds)
        if (turn === 0) continue
        samples.push(sample)
        peer.push(nanos)
      }
      machine.close()
      const p50s = samples.map(({ p50 }) => p50)
      return {
        value: median(p50s),
        peer: { name: "bare loop in C, same guest", value: median(peer) },
        best: { value: Math.min(...p50s), peer: Math.min(...peer) },
        samples: p50s,
        details: {
          p99: Math.round(median(samples.map(({ p99 }) => p99))),
          cores: Number(median(samples.map(({ cores }) => cores)).toFixed(2))
        }
      }
    })
  )

export const figure: Figure = {
  metric: "kvm.pio_exit_worker_ns",
  unit: "ns",
  run: () => whereKvm(measure)
}
