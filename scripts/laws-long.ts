/**
 * Tries every law on many cases, seeded: 10,000 each on Simulated, with both kinds of completion.
 *
 *   npm run laws:long -- [--runs N] [--seed SEED] [--law NUMBER]... [--layer NAME]... [--replay TOKEN]
 *
 * Layers: simulated, polling (Simulated that polls for completion), emulated; where /dev/kvm can be used also kvm and
 * kvm-worker (vCPUs inline and on threads, without interrupt controllers) and kvm-irqchip (inline, with them). Default
 * simulated and polling. `--replay` takes the token of a failure, with one law and one layer. The last line is JSON; laws
 * that cannot be tried on a layer are skipped and count as that. The exit status is 1 when a law does not hold, and 2
 * when it is not known.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { parseArgs } from "node:util"
import * as Emulated from "../src/layers/Emulated.ts"
import * as Kvm from "../src/layers/Kvm.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import type { Hypervisor } from "../src/services/Hypervisor.ts"
import * as Law from "../src/testing/Law.ts"
import { laws } from "../src/testing/laws/all.ts"

const LAYERS: Readonly<Record<string, Layer.Layer<Hypervisor, { readonly message: string }>>> = {
  simulated: Simulated.layer,
  polling: Simulated.layerWith({ completion: "Polling" }),
  emulated: Emulated.layerWith({ clock: "Virtual" }),
  kvm: Kvm.layerWith({ interruptController: "None" }),
  "kvm-worker": Kvm.layerWith({ interruptController: "None", placement: "Worker" }),
  "kvm-irqchip": Kvm.layer
}

const parse = () => {
  try {
    return parseArgs({
      options: {
        runs: { type: "string", default: "10000" },
        seed: { type: "string", default: "1" },
        law: { type: "string", multiple: true, default: laws.map(({ number }) => String(number)) },
        layer: { type: "string", multiple: true, default: ["simulated", "polling"] },
        replay: { type: "string" }
      }
    })
  } catch (problem) {
    process.stderr.write(`${String(problem)}\n`)
    process.exit(2)
  }
}

const { values } = parse()

/** Why the options cannot be used, if they cannot. */
const problem = (): string | undefined => {
  const runs = Number(values.runs)
  if (!Number.isInteger(runs) || runs < 1) return `--runs ${values.runs} is not a positive integer`
  const unknownLayer = values.layer.find((name) => !Object.hasOwn(LAYERS, name))
  if (unknownLayer !== undefined) {
    return `there is no layer ${unknownLayer}; there are ${Object.keys(LAYERS).join(", ")}`
  }
  const unknownLaw = values.law.find((number) => !laws.some((law) => String(law.number) === number))
  if (unknownLaw !== undefined) return `there is no law ${unknownLaw}`
  if (values.replay !== undefined && (values.law.length !== 1 || values.layer.length !== 1)) {
    return "--replay wants one --law and one --layer"
  }
  return undefined
}

const seconds = (since: number): number => Math.round((performance.now() - since) / 100) / 10

interface Sum {
  cases: number
  skipped: number
  failed: number
}

const tryOne = (law: Law.Law, layer: string, sum: Sum) =>
  Effect.gen(function*() {
    const start = performance.now()
    const { replay, runs, seed } = values
    const outcome = yield* Law.check(law, layer, LAYERS[layer]!, { runs: Number(runs), seed, replay })
    const name = `law ${law.number} on ${layer}`
    switch (outcome._tag) {
      case "Held":
        sum.cases += outcome.cases
        return yield* Console.log(`${name}: ${outcome.cases} cases in ${seconds(start)} s`)
      case "Skipped":
        sum.skipped++
        return yield* Console.log(`${name}: skipped, ${outcome.reason}`)
      case "Broken": {
        sum.cases += outcome.cases
        sum.failed++
        const line = `npm run laws:long -- --law ${law.number} --layer ${layer} --replay '${outcome.replay}'`
        return yield* Console.log(Law.format(law, layer, outcome, line))
      }
    }
  })

const main = Effect.gen(function*() {
  const start = performance.now()
  const bad = problem()
  if (bad !== undefined) {
    yield* Console.error(bad)
    process.exitCode = 2
    return
  }
  const sum: Sum = { cases: 0, skipped: 0, failed: 0 }
  for (const layer of values.layer) {
    for (const law of laws) {
      if (values.law.includes(String(law.number))) yield* tryOne(law, layer, sum)
    }
  }
  yield* Console.log(JSON.stringify({ ...sum, seconds: seconds(start) }))
  if (sum.failed > 0) process.exitCode = 1
})

const unusableLayer = ({ message }: { readonly message: string }) =>
  Effect.andThen(
    Console.error(message),
    Effect.sync(() => {
      process.exitCode = 2
    })
  )

NodeRuntime.runMain(Effect.catch(main, unusableLayer))
