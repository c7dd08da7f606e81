import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Simulated from "../../src/layers/Simulated.ts"
import * as HypercallSequence from "../../src/testing/HypercallSequence.ts"
import { runNodeInside } from "./boot.ts"
import { sequenceDifferences } from "./sequenceDifferences.ts"
import { compare, type ComparedCall } from "./sequenceRules.ts"
import { abilitiesOf, HYPERVISOR, runAll, sequences, type Step } from "./sequenceRuns.ts"

const SEQUENCES = Number(process.env["UPCALL_HSM_RUNS"] ?? 400)
const SEED = Number(process.env["UPCALL_HSM_SEED"] ?? 4)

// Of each hypercall so many must be accepted and so many refused, on both sides, or the comparison means little.
const AT_LEAST = Math.floor(SEQUENCES / 16)

const HYPERCALLS = [
  "Create",
  "Destroy",
  "Start",
  "Pause",
  "Reset",
  "SetRegisters",
  "SetPage",
  "Notify",
  "SetRegions",
  "SetIrqLine"
].flatMap((call) => [`${call} accepted`, `${call} refused`])

/** What the driver passed on. Nobody asks it to destroy a VM that is not paused, or to complete for no vCPU. */
const PASSED_ON = [
  "CreateVm accepted",
  "CreateVm refused",
  "DestroyVm accepted",
  "NotifyRequestFinish accepted",
  "PauseVm accepted",
  "ResetVm accepted",
  "ResetVm refused",
  "SetIoRequestBuffer accepted",
  "SetIrqLine accepted",
  "SetIrqLine refused",
  "SetMemoryRegions accepted",
  "SetMemoryRegions refused",
  "SetVcpuRegs accepted",
  "SetVcpuRegs refused",
  "StartVm accepted",
  "StartVm refused"
]

const count = <A>(values: Iterable<A>): ReadonlyMap<A, number> => {
  const counts = new Map<A, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return counts
}

const verdict = ({ result }: { readonly result: number }): string => result < 0 ? "refused" : "accepted"

const showCounts = (of: string, counts: ReadonlyMap<string, number>): string =>
  `${of}: ${[...counts].map(([name, times]) => `${name} ${times}`).toSorted().join(", ")}`

/** The first call of a sequence that differs by nothing in the list: those after it may differ for its sake. */
const problemOf = (compared: ReadonlyArray<ComparedCall>): string | undefined => {
  const first = compared.findIndex(({ problem }) => problem !== undefined)
  return first < 0
    ? undefined
    : `${HypercallSequence.format(compared.slice(0, first + 1).map(({ call }) => call))}\n${compared[first]!.problem}`
}

describe("the same hypercall sequences on Simulated, directly and through the real driver", () => {
  it.live(
    `${SEQUENCES} sequences give the same, but for what is listed`,
    () =>
      Effect.gen(function*() {
        const all = yield* sequences(SEQUENCES, SEED)
        const abilities = yield* abilitiesOf(Simulated.layerWith(HYPERVISOR))
        const onSimulated = yield* runAll(Simulated.layerWith(HYPERVISOR), all)
        const { calls: hypercalls, end, errors, reports } = yield* runNodeInside({
          file: "test/hsm/inside/sequences.ts",
          args: [String(SEQUENCES), String(SEED)],
          hypervisor: HYPERVISOR,
          seconds: 60 + SEQUENCES / 2
        })
        assert.deepStrictEqual(errors, [])
        assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
        assert.strictEqual(reports.length, all.length)
        const throughDriver = reports as ReadonlyArray<ReadonlyArray<Step>>
        const compared = all.map((calls, index) =>
          compare(calls, onSimulated[index]!, throughDriver[index]!, abilities)
        )

        assert.deepStrictEqual(compared.map(problemOf).filter((problem) => problem !== undefined).slice(0, 3), [])
        for (const [index, { id }] of sequenceDifferences.entries()) {
          assert.deepStrictEqual(compared[index]!.at(-1)!.differences, [id])
        }

        const random = compared.slice(sequenceDifferences.length).flat()
        const direct = count(random.map((each) => `${each.call._tag} ${verdict(each.direct)}`))
        const driven = count(random.map((each) => `${each.call._tag} ${verdict(each.driven)}`))
        const passedOn = count(hypercalls.map(({ call, result }) => `${call?._tag} ${verdict({ result })}`))
        for (const [counts, names] of [[direct, HYPERCALLS], [driven, HYPERCALLS], [passedOn, PASSED_ON]] as const) {
          for (const name of names) assert.isAtLeast(counts.get(name) ?? 0, AT_LEAST, name)
        }
        console.log([
          showCounts("on Simulated", direct),
          showCounts("through the driver", driven),
          showCounts("passed on by the driver", passedOn),
          showCounts("differences", count(random.flatMap(({ differences }) => differences)))
        ].join("\n"))
      }),
    3_600_000
  )
})
