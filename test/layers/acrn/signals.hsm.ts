import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { boot } from "../../hsm/boot.ts"

const program = `"${process.execPath}" --no-warnings test/layers/acrn/inside/signalled.ts`

describe("a program that NodeRuntime.runMain runs", () => {
  for (const signal of ["INT", "TERM"]) {
    it.live(`takes its running VM along on SIG${signal}, over a strict hypervisor`, () =>
      Effect.gen(function*() {
        const { calls, end, errors } = yield* boot({
          inside: `${program} & pid=$!; read go; kill -${signal} $pid; wait $pid; true`,
          onLine: (_, line, say) => {
            if (line === "running") say("go\n")
          },
          seconds: 60
        })
        assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
        assert.deepStrictEqual(errors, [])
        const last = calls.at(-1)
        assert.deepStrictEqual([last?.call?._tag, last?.result], ["DestroyVm", 0])
      }))
  }
})
