import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { boot, runNodeInside } from "../../hsm/boot.ts"

const INSIDE = "test/layers/acrn/inside"

/** What a program inside told, by what it was about. */
const run = (program: string, options: { readonly args?: ReadonlyArray<string> } = {}) =>
  Effect.map(
    runNodeInside({ file: `${INSIDE}/${program}.ts`, seconds: 120, ...options }),
    ({ calls, console, end, errors, reports }) => {
      assert.deepStrictEqual(errors, [])
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
      const told = new Map(
        (reports as ReadonlyArray<{ what: string; value: any }>).map(({ what, value }) => [what, value])
      )
      assert.strictEqual(told.get("exit"), "success")
      return { told, console, calls: calls.map(({ call, result }) => [call?._tag, result] as const) }
    }
  )

describe("Acrn.layer on the real driver", () => {
  it.live("a VM's life, twice, with a console", () =>
    Effect.gen(function*() {
      const { calls, told } = yield* run("lifeCycle")
      assert.deepStrictEqual(told.get("lives"), ["ABCDE`", "ABCDE`"])
      assert.deepStrictEqual(told.get("transitions"), ["Start", "Pause", "Reset", "Start", "Pause", "Reset"])
      assert.deepStrictEqual(told.get("counts"), [{ client: "uart0", requests: 14 }])
      assert.deepStrictEqual(told.get("refusals"), [])
      assert.deepStrictEqual(told.get("left"), { files: 0, threads: 0 })
      const requests = Array.from({ length: 7 }, () => "NotifyRequestFinish")
      const life = ["StartVm", ...requests, "PauseVm", "ResetVm", "SetVcpuRegs"]
      assert.deepStrictEqual<ReadonlyArray<unknown>>(calls.map(([call]) => call), [
        "CreateVm",
        // Both inside the ioctl CREATE_VM.
        "SetIoRequestBuffer",
        "SetMemoryRegions",
        "SetVcpuRegs",
        ...life,
        ...life,
        "PauseVm",
        "PauseVm",
        "DestroyVm"
      ])
      assert.isTrue(calls.every(([, result]) => result === 0))
    }))

  it.live("beside the straight path", () =>
    Effect.gen(function*() {
      const { console, told } = yield* run("edges")
      // A waiting thread that asked the driver again and again would use all of the one processor.
      assert.isBelow(told.get("heldAtClose").cpuMs, 250)
      assert.strictEqual(told.get("waitingAtClose"), "closed")
      assert.include(told.get("pauseDeadline"), "still held after 20 ms by never")
      assert.isAbove(told.get("throughput").perSecond, 10)
      assert.deepStrictEqual(told.get("twoVms"), { ids: [1, 2], both: true })
      assert.isTrue(told.get("slowOne").isFastServed)
      assert.strictEqual(told.get("bigRam"), 1)
      assert.include(told.get("refusals").unmap, "only RAM until the VM's end")
      assert.include(told.get("refusals").uncached, "EPERM")
      assert.strictEqual(told.get("refusals").readOnly, "accepted")
      assert.deepStrictEqual(told.get("byHand"), {
        startWithoutPage: -1,
        badPage: -1,
        page: 0,
        destroyCreated: -1,
        resetCreated: -1,
        foreignMemory: -1,
        mmioOfNoWindow: -1,
        writeCombining: -22,
        unmapNothing: -22,
        ram: 0,
        unmapRam: -22,
        line: 0,
        noLine: -1,
        start: 0,
        destroyRunning: -1,
        notifyNoVcpu: -1,
        pageRunning: -1,
        pause: 0,
        reset: 0,
        pauseAgain: 0,
        destroy: 0,
        gone: -1
      })
      const capabilities = told.get("capabilities")
      assert.isTrue(capabilities.rang)
      // The doorbell is the kernel's: no client of ours saw its accesses.
      assert.deepStrictEqual(capabilities.seen, [])
      assert.strictEqual(capabilities.raised, 0)
      assert.strictEqual(capabilities.msi, -25)
      assert.include(capabilities.counts, "this hypervisor does not have the hypercall")
      assert.include(capabilities.wide, "the width is not 1, 2, 4 or 8 bytes")
      assert.isTrue(console.some((line) => line.includes("Failed to inject MSI to VM")))
      assert.strictEqual(told.get("interrupted"), "clean")
      assert.deepStrictEqual(told.get("left"), { files: 0, threads: 0 })
    }))

  it.live("a reset with a request held: the driver completes it, while the VM is paused", () =>
    Effect.gen(function*() {
      const { calls, told } = yield* run("resetHeld")
      assert.strictEqual(told.get("afterReset"), "Free")
      assert.strictEqual(told.get("late"), "Foreign")
      assert.isTrue(told.get("nextLife"))
      const pause = calls.findIndex(([call]) => call === "PauseVm")
      assert.deepStrictEqual(calls.slice(pause, pause + 3).map(([call]) => call), [
        "PauseVm",
        "NotifyRequestFinish",
        "ResetVm"
      ])
    }))

  it.live("a process that ends with its VM running takes the VM along, also over a strict hypervisor", () =>
    Effect.gen(function*() {
      const node = `"${process.execPath}" --no-warnings`
      const { end, output } = yield* boot({
        inside: [
          `${node} ${INSIDE}/exitRunning.ts exit; echo status $?`,
          `${node} ${INSIDE}/exitRunning.ts throw; echo status $?`,
          `exec ${node} ${INSIDE}/lifeCycle.ts`
        ].join("\n"),
        seconds: 120
      })
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
      assert.deepStrictEqual(output.filter((line) => line.startsWith("status")), ["status 7", "status 1"])
      assert.include(output, JSON.stringify({ what: "lives", value: ["ABCDE`", "ABCDE`"] }))
    }))

  it.live("a process that is killed leaves nothing, where the hypervisor destroys a running VM", () =>
    Effect.gen(function*() {
      const node = `"${process.execPath}" --no-warnings`
      const { end, output } = yield* boot({
        hypervisor: { destroyRunning: "Stop" },
        inside: [
          `${node} ${INSIDE}/exitRunning.ts kill; echo status $?`,
          `exec ${node} ${INSIDE}/lifeCycle.ts`
        ].join("\n"),
        seconds: 120
      })
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
      assert.include(output, "status 137")
      assert.include(output, JSON.stringify({ what: "created", value: { id: 1, vcpus: 1 } }))
      assert.include(output, JSON.stringify({ what: "lives", value: ["ABCDE`", "ABCDE`"] }))
    }))
})
