/**
 * Requests a second of one vCPU through ACRN's driver, and from trap to completion: Simulated outside, the driver in
 * User-Mode Linux, the Acrn layer's program inside, and back. The peer is Simulated under the same program.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { HypercallId } from "../src/domain/abi/HypercallId.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import { HypercallGate } from "../src/services/HypercallGate.ts"
import { Upcalls } from "../src/services/Upcalls.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { makeHeldGuest } from "./acrn/heldGuest.ts"
import { Latencies } from "./acrn/Latencies.ts"
import { whereBuilt } from "./acrn/skip.ts"
import { compare, type Figure, median, type Sampler } from "./harness.ts"

interface Throughout {
  readonly sampler: Sampler
  readonly end: () => Promise<void>
}

/** Boots, and samples what runs inside. */
const startDriver = async (latencies: Latencies): Promise<Throughout> => {
  // Not before it is known that there is a kernel: it needs koffi.
  const { runNodeInside } = await import("../test/hsm/boot.ts")
  return new Promise((started, failed) => {
    let told: (nanos: number) => void = () => undefined
    const machine = Effect.runPromise(runNodeInside({
      file: "bench/acrn/requestsInside.ts",
      seconds: 300,
      isRecording: false,
      onUpcall: latencies.trapped,
      intercept: (_, { id }) => {
        if (id === HypercallId.NotifyRequestFinish) latencies.completed()
        return undefined
      },
      onLine: (source, line, say) => {
        if (source !== "Output") return
        const report = JSON.parse(line) as { readonly ready?: true; readonly nanos?: number }
        if (report.nanos !== undefined) return told(report.nanos)
        started({
          sampler: (iterations) =>
            new Promise((resolve, reject) => {
              told = resolve
              machine.then(({ errors }) => reject(new Error(`the machine ended: ${errors.join("\n")}`)), reject)
              latencies.skipNext()
              say(`${iterations}\n`)
            }),
          end: async () => {
            say("end\n")
            await machine
          }
        })
      }
    }))
    machine.then(
      ({ console, errors }) => failed(new Error(`nothing was measured: ${[...errors, ...console].join("\n")}`)),
      failed
    )
  })
}

/** Simulated, with an eye on what passes the seam. */
const watched = (latencies: Latencies) =>
  Layer.effectContext(Effect.gen(function*() {
    const gate = yield* HypercallGate
    // The first to be called at each upcall.
    yield* (yield* Upcalls).register(latencies.trapped)
    return Context.make(
      HypercallGate,
      HypercallGate.of({
        ...gate,
        notifyFinish: (vmId, vcpu) => {
          latencies.completed()
          return gate.notifyFinish(vmId, vcpu)
        }
      })
    )
  })).pipe(Layer.provideMerge(Simulated.layer))

const measure = (through: Latencies, direct: Latencies) =>
  Effect.gen(function*() {
    const driver = yield* Effect.promise(() => startDriver(through))
    const simulated = yield* makeHeldGuest
    const { ours, theirs } = yield* Effect.promise(() =>
      compare(driver.sampler, (iterations) => {
        direct.skipNext()
        return simulated(iterations)
      })
    )
    yield* Effect.promise(driver.end)
    const perSecond = (nanos: ReadonlyArray<number>) => nanos.map((each) => 1e9 / each)
    const [rates, directRates] = [perSecond(ours), perSecond(theirs)]
    return {
      value: median(rates),
      peer: { name: "Simulated direct, same program", value: median(directRates) },
      best: { value: Math.max(...rates), peer: Math.max(...directRates) },
      samples: rates,
      details: { trapToCompletionUs: { throughDriver: through.quantiles(), direct: direct.quantiles() } }
    }
  })

export const figure: Figure = {
  metric: "acrn.requests_per_s",
  unit: "requests/s",
  run: () =>
    whereBuilt(() => {
      const direct = new Latencies()
      return measure(new Latencies(), direct).pipe(
        Effect.scoped,
        Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(watched(direct)))),
        Effect.runPromise
      )
    })
}
