/**
 * The two vCPUs that run everywhere, on the same random guest programs: what can be seen of them is the same.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Arbitrary from "effect/Arbitrary"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import { differences } from "../support/differences.ts"
import { buildEmulated, buildSimulated } from "./hypervisors.ts"
import { MMIO, PORTS, probes } from "./probe.ts"

const RAM = 0x1_0000

/** Runs operations on both and says where they part, if they do. */
const compare = Effect.gen(function*() {
  const simulated = yield* buildSimulated
  const emulated = yield* buildEmulated
  return (operations: ReadonlyArray<GuestProgram.OperationInput>) =>
    Effect.gen(function*() {
      const program = Result.getOrThrow(GuestProgram.assemble(operations, { memoryBytes: RAM }))
      const a = yield* Effect.provide(GuestRun.run(program, probes), simulated)
      const b = yield* Effect.provide(GuestRun.run(program, probes), emulated)
      return differences(a, b)
    })
})

const sameOnBoth = (options: Arbitraries.GuestProgramOptions) =>
  Effect.gen(function*() {
    const differencesOf = yield* compare
    const result = yield* Arbitrary.checkEffect(
      Arbitraries.guestProgram(options),
      (operations) => Effect.map(differencesOf(operations), (found) => found.length === 0),
      { runs: 120, size: 30 }
    )
    assert.isUndefined(Arbitrary.formatCheckFailure(result))
  })

describe("Simulated and Emulated", () => {
  it.effect("run the same guest program the same way", () => sameOnBoth({ ports: PORTS, mmio: MMIO }))

  it.effect("agree where RAM ends and where ports end", () =>
    sameOnBoth({ ports: { start: 0xfff0, end: 0xffff }, mmio: { start: RAM - 6, end: RAM + 6 } }))

  it.effect("agree at the end of the address space and at the interrupt controllers", () =>
    Effect.gen(function*() {
      const differencesOf = yield* compare
      const keep = { _tag: "Keep" } as const
      const found = yield* differencesOf([
        { _tag: "Load", address: 0xffff_ffff, size: 4 },
        keep,
        { _tag: "Store", address: 0xffff_fffd, size: 4, value: 0x1122_3344 },
        ...[0x1f, 0x20, 0x21, 0xa0, 0xa1].flatMap((port) =>
          ([1, 2, 4] as const).flatMap((size) => [
            { _tag: "PortIn", port, size } as const,
            keep,
            { _tag: "PortOut", port, size, value: 0x2020_2020 } as const
          ])
        )
      ])
      assert.deepStrictEqual(found, [])
    }))
})
