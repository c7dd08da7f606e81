import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Simulated from "../../src/layers/Simulated.ts"
import { runNodeInside } from "./boot.ts"
import { runAll } from "./differentialRuns.ts"
import { tellingEnds } from "./tellingEnds.ts"

const PROGRAMS = Number(process.env["UPCALL_HSM_RUNS"] ?? 250)
const SEED = Number(process.env["UPCALL_HSM_SEED"] ?? 4)

describe("the same guest programs on Simulated, directly and through the real driver", () => {
  it.live(`${PROGRAMS} programs give the same results, memory and trace`, () =>
    Effect.gen(function*() {
      const direct = yield* runAll(Simulated.layer, PROGRAMS, SEED)
      const { end, errors, reports } = yield* runNodeInside({
        file: "test/hsm/inside/differential.ts",
        args: [String(PROGRAMS), String(SEED)],
        isRecording: false,
        seconds: 60 + PROGRAMS / 10,
        ...tellingEnds()
      })
      assert.deepStrictEqual(errors, [])
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
      assert.isTrue(direct.some(({ requests }) => requests > 10))
      assert.deepStrictEqual<ReadonlyArray<unknown>>(reports, direct)
    }), 3_600_000)
})
