import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { boot } from "./boot.ts"
import { artifacts } from "./transport/Artifacts.ts"

const REQUESTS = 7

/** Ends the sample by the signal it knows, when the word comes that it has served everything. */
const untilTold = (sample: string) => `"${sample}" & pid=$!; read go; kill -INT $pid; wait $pid`

const runSample = Effect.gen(function*() {
  const { sample } = yield* artifacts
  let requests = 0
  return yield* boot({
    inside: untilTold(sample),
    onLine: (_, line, say) => {
      if (line.startsWith("Guest VM") && ++requests === REQUESTS) say("go\n")
    }
  })
})

describe("the kernel's own sample client, through the real driver", () => {
  it.live("creates, maps, sets registers, starts, serves, pauses and destroys", () =>
    Effect.gen(function*() {
      const { calls, end, ends, output } = yield* runSample
      const write = "Guest VM write PIO[3f8] with size[1]"
      assert.deepStrictEqual(output, [
        "Created VM! [0]",
        "Set up VM memory! [0]",
        "Set up VM BSP registers! [0]",
        "Created IO request client! [0]",
        "Start VM! [0]",
        ...Array.from({ length: 5 }, () => write),
        "Guest VM read PIO[3fd] with size[1]",
        write,
        "Destroy VM! [0]"
      ])
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
      assert.deepStrictEqual(
        calls.map(({ call, result }): [string | undefined, number] => [call?._tag, result]),
        [
          ["CreateVm", 0],
          // Set inside the ioctl CREATE_VM, before any RAM: vm.c:43, ioreq.c:620.
          ["SetIoRequestBuffer", 0],
          ["SetMemoryRegions", 0],
          ["SetVcpuRegs", 0],
          ["StartVm", 0],
          ...Array.from({ length: REQUESTS }, (): [string, number] => ["NotifyRequestFinish", 0]),
          ["PauseVm", 0],
          // RAM is never unmapped: DESTROY_VM is the last call, vm.c:67 and mm.c:352.
          ["DestroyVm", 0]
        ]
      )
      // One operation for each page of 1 MiB: mm.c:299.
      const map = calls.find(({ call }) => call?._tag === "SetMemoryRegions")?.call
      assert.strictEqual(map?._tag === "SetMemoryRegions" ? map.operations.length : undefined, 256)
      assert.deepStrictEqual(ends.map(({ reason }) => reason._tag), ["Halted"])
    }))
})
