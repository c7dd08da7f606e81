import { assert, describe, it } from "@effect/vitest"
import { closeSync, openSync, readdirSync } from "node:fs"
import process from "node:process"
import { Errno } from "../../../src/domain/Errno.ts"
import { makeWaiters } from "../../../src/layers/acrn/Waiters.ts"
import { loadLibc } from "../../../src/layers/native/Libc.ts"

const page = () => new Uint8Array(new SharedArrayBuffer(4096))
const threads = () => readdirSync("/proc/self/task").length

describe.skipIf(process.platform !== "linux" || process.arch !== "x64")("Waiters", () => {
  it("a thread whose driver refuses says so, and serves the next VM", async () => {
    const libc = await loadLibc()
    const before = threads()
    const waiters = makeWaiters(libc)
    // It knows no such request.
    const fd = openSync("/dev/null", "r+")
    try {
      const first = await waiters.take()
      for (let vm = 0; vm < 2; vm++) {
        const thread = vm === 0 ? first : await waiters.take()
        assert.strictEqual(thread, first)
        const problem = await new Promise<string>((resolve) => {
          thread.wait({ fd, vcpus: 1, page: page(), onRequest: () => undefined, onFailure: resolve })
        })
        assert.include(problem, String(-Errno.ENOTTY))
      }
    } finally {
      closeSync(fd)
      await waiters.close()
    }
    assert.isAtMost(threads(), before)
  })

  it("a request on the page is told of once, and leaving ends the wait", async () => {
    const waiters = makeWaiters(await loadLibc())
    const shown = page()
    // vCPU 0's slot, which says PROCESSING.
    new Int32Array(shown.buffer)[34] = 2
    const thread = await waiters.take()
    const told: Array<number> = []
    const failures: Array<string> = []
    await new Promise<void>((resolve) => {
      const waiter = thread.wait({
        fd: -1,
        vcpus: 1,
        page: shown,
        onRequest: (vcpu) => {
          told.push(vcpu)
          waiter.leave()
          void waiter.gone.then(resolve)
        },
        onFailure: (problem) => failures.push(problem)
      })
    })
    assert.deepStrictEqual(told, [0])
    assert.deepStrictEqual(failures, [])
    await waiters.close()
  })

  it("a wait that is left before it began never begins", async () => {
    const waiters = makeWaiters(await loadLibc())
    const thread = await waiters.take()
    const failures: Array<string> = []
    const waiter = thread.wait({
      fd: -1,
      vcpus: 1,
      page: page(),
      onRequest: () => undefined,
      onFailure: (problem) => failures.push(problem)
    })
    waiter.leave()
    await waiter.gone
    assert.deepStrictEqual(failures, [])
    await waiters.close()
  })
})
