/**
 * Two VMs of four vCPUs each at once under load on KVM, paused and resumed every 10 ms, in both placements one after the
 * other; then a thousand VMs that are created, run and destroyed. Nothing may be lost, and nothing may be left.
 *
 *   npm run kvm:soak -- [--seconds N] [--cycles N] [--placement Inline|Worker]...
 *
 * Default: 60 seconds and 1000 cycles in each placement. The last line is JSON; the exit status is 1 when a request was
 * lost or something is left, and 2 when there is no KVM here.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { parseArgs } from "node:util"
import * as Kvm from "../src/layers/Kvm.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import { cycles } from "../test/layers/kvm/support/cycles.ts"
import { soak } from "../test/layers/kvm/support/soak.ts"

const PAUSE_EVERY_MS = 10
const PLACEMENTS = ["Inline", "Worker"] as const

const fail = (problem: string): never => {
  process.stderr.write(`kvm-soak: ${problem}\n`)
  process.exit(2)
}

const parse = () => {
  try {
    return parseArgs({
      options: {
        seconds: { type: "string", default: "60" },
        cycles: { type: "string", default: "1000" },
        placement: { type: "string", multiple: true, default: [...PLACEMENTS] }
      }
    }).values
  } catch (problem) {
    return fail(problem instanceof Error ? problem.message : String(problem))
  }
}

const values = parse()
const positive = (option: string, text: string): number =>
  /^[1-9]\d{0,5}$/.test(text) ? Number(text) : fail(`--${option} is an integer from 1 on, not "${text}"`)
const seconds = positive("seconds", values.seconds)
const count = positive("cycles", values.cycles)
const placements = values.placement.map((name) =>
  PLACEMENTS.find((placement) => placement === name) ?? fail(`there is no placement ${name}; there are Inline, Worker`)
)

const soakIn = (placement: (typeof PLACEMENTS)[number]) =>
  Effect.gen(function*() {
    const until = Date.now() + seconds * 1000
    const soaked = yield* soak({ vms: 2, vcpus: 4, betweenMs: PAUSE_EVERY_MS, goesOn: () => Date.now() < until })
    for (const { pauses, problems, requests } of soaked) {
      yield* Console.log(`${placement}: ${pauses} pauses, requests by vCPU ${requests.join(", ")}`)
      for (const problem of problems) yield* Console.log(`  ${problem}`)
    }
    const left = yield* cycles(count)
    yield* Console.log(`${placement}: ${count} VMs, left of them: ${left.length === 0 ? "nothing" : left.join("; ")}`)
    const isIdle = soaked.some(({ requests }) => requests.includes(0))
    const isLost = isIdle || soaked.some(({ end, problems }) => end !== "Halted" || problems.length > 0)
    return { placement, soaked, left, isGood: !isLost && left.length === 0 }
  }).pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Kvm.layerWith({ placement }))), { local: true })
  )

const program = Effect.gen(function*() {
  const results = yield* Effect.forEach(placements, soakIn)
  yield* Console.log(JSON.stringify({ seconds, cycles: count, results }))
  if (results.some(({ isGood }) => !isGood)) process.exitCode = 1
})

NodeRuntime.runMain(Effect.catchTag(program, "KvmError", (error) => Effect.sync(() => fail(error.message))))
