/**
 * The same seeded program on every hypervisor, in one run: the same trace, results, registers and memory.
 *
 * The normal form of a trace is by bytes where it is about memory. A hypervisor may cut an access there: at the end of a
 * page KVM makes 3 bytes and 1 of 4, which reach the page as 2, 1 and 1; the emulator makes two of each read of 16 bits.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Simulated from "../../src/layers/Simulated.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as Law from "../../src/testing/Law.ts"
import * as ProgramCase from "../../src/testing/laws/ProgramCase.ts"
import * as Reference from "../../src/testing/laws/Reference.ts"
import * as SameTrace from "../../src/testing/laws/SameTrace.ts"
import * as Trace from "../../src/testing/Trace.ts"
import { differences } from "../support/differences.ts"
import { buildKvm, kvmProblem } from "../support/kvm.ts"
import { buildEmulated, buildSimulated } from "../testing/hypervisors.ts"
import { PORTS, probes } from "../testing/probe.ts"

const RAM = 0x1_0000
const PAGE = 0x1000
const SIZE = 30
// In the probes' memory.
const AROUND_PAGE_END = { start: 0xe000_0ff8, end: 0xe000_1007 }

const problem = kvmProblem()
const reason = problem === undefined ? "" : ` (skipped: ${problem})`

type Operation = GuestProgram.Operation

/** How often each kind of operation was done, loops counted out, so that a test that compares nothing is seen. */
class Tally {
  readonly counts = new Map<string, number>()

  add(operations: ReadonlyArray<Operation>, times = 1): void {
    for (const operation of operations) {
      this.count(operation._tag, times)
      if (operation._tag === "Loop") this.add(operation.body, times * operation.times)
      if ("address" in operation && operation.address % PAGE + operation.size > PAGE) this.count("across pages", times)
      if ("port" in operation && operation.port + operation.size > 0x1_0000) this.count("beyond the ports", times)
    }
  }

  private count(name: string, times: number): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + times)
  }

  /** Each of these was done so often at least. */
  assertAtLeast(least: number, names: ReadonlyArray<string>): void {
    for (const name of names) assert.isAtLeast(this.counts.get(name) ?? 0, least, name)
  }
}

const EVERY_KIND = ["PortIn", "PortOut", "StringIn", "StringOut", "Load", "Store", "Work", "Keep", "Loop"]

const assertPassed = (result: Generator.CheckResult<unknown, unknown>, runs: number) => {
  assert.isUndefined(Generator.formatFailure(result))
  assert.deepInclude(result, { _tag: "Passed", runs })
}

const sameOnThree = (options: Arbitraries.GuestProgramOptions, runs: number, tally: Tally) =>
  Effect.gen(function*() {
    const simulated = yield* buildSimulated
    const others = {
      Emulated: yield* buildEmulated,
      Kvm: yield* buildKvm("Inline"),
      "Kvm on threads": yield* buildKvm("Worker")
    }
    const result = yield* Generator.check(
      Arbitraries.guestProgram(options),
      (operations) =>
        Effect.gen(function*() {
          tally.add(operations)
          const program = Result.getOrThrow(GuestProgram.assemble(operations, { memoryBytes: RAM }))
          const expected = yield* Effect.provide(GuestRun.run(program, probes), simulated)
          for (const [name, hypervisor] of Object.entries(others)) {
            const found = differences(expected, yield* Effect.provide(GuestRun.run(program, probes), hypervisor))
            if (found.length > 0) return yield* Effect.fail(`Simulated and ${name} differ in ${found.join("; ")}`)
          }
          return true
        }),
      { runs, size: SIZE, seed: 5 }
    )
    assertPassed(result, runs)
  })

/** What each vCPU asked and was told, in order, and what it kept. */
const seenBy = (value: ProgramCase.ProgramCase) =>
  Effect.map(ProgramCase.run(value), ({ end, entries, results }) => ({
    end,
    served: Reference.servedIn(Trace.inBytes(entries), value.programs.length),
    results
  }))

type Seen = Effect.Success<ReturnType<typeof seenBy>>

const parting = (a: Seen, b: Seen): string | undefined => {
  if (a.end._tag !== "Halted" || b.end._tag !== "Halted") return `ends: ${a.end._tag}, ${b.end._tag}`
  for (const [vcpu, served] of a.served.entries()) {
    const difference = Reference.firstDifference(served, b.served[vcpu]!)
    if (difference !== undefined) return `vCPU ${vcpu}: ${difference}`
    if (Buffer.compare(a.results[vcpu]!, b.results[vcpu]!) !== 0) return `results of vCPU ${vcpu}`
  }
  return undefined
}

describe(`Simulated, Emulated and Kvm${reason}`, () => {
  it.live.skipIf(problem !== undefined)("run 500 programs the same way", () =>
    Effect.gen(function*() {
      const tally = new Tally()
      yield* sameOnThree({ ports: PORTS, mmio: AROUND_PAGE_END }, 500, tally)
      tally.assertAtLeast(200, [...EVERY_KIND, "PciRead", "PciWrite", "across pages"])
    }))

  it.live.skipIf(problem !== undefined)("agree where RAM ends and where ports end", () =>
    Effect.gen(function*() {
      const tally = new Tally()
      yield* sameOnThree(
        { ports: { start: 0xfff0, end: 0xffff }, mmio: { start: RAM - 6, end: RAM + 6 }, pci: false },
        100,
        tally
      )
      tally.assertAtLeast(20, [...EVERY_KIND, "across pages", "beyond the ports"])
    }))
})

describe(`Simulated and Kvm${reason}`, () => {
  it.live.skipIf(problem !== undefined)(
    "run 200 programs on several vCPUs the same way, each vCPU for itself",
    () =>
      Effect.gen(function*() {
        const simulated = yield* buildSimulated
        const others = { Kvm: yield* buildKvm("Inline"), "Kvm on threads": yield* buildKvm("Worker") }
        const subject = yield* Law.subject("Simulated", Simulated.layer)
        const tally = new Tally()
        let several = 0
        const result = yield* Generator.check(
          SameTrace.cases(subject, { maxVcpus: 4 }),
          (value) =>
            Effect.gen(function*() {
              for (const operations of value.programs) tally.add(operations)
              if (value.programs.length > 1) several++
              const expected = yield* Effect.provide(seenBy(value), simulated)
              for (const [name, hypervisor] of Object.entries(others)) {
                const found = parting(expected, yield* Effect.provide(seenBy(value), hypervisor))
                if (found !== undefined) return yield* Effect.fail(`Simulated and ${name} differ: ${found}`)
              }
              return true
            }),
          { runs: 200, size: SIZE, seed: 6 }
        )
        assertPassed(result, 200)
        assert.isAtLeast(several, 100)
        tally.assertAtLeast(100, EVERY_KIND)
      })
  )
})
