import { assert, describe, it } from "@effect/vitest"
import { Worker } from "node:worker_threads"
import { DispatcherSide } from "../../../../src/layers/kvm/mailbox/DispatcherSide.ts"
import { listen } from "../../../../src/layers/kvm/mailbox/listen.ts"
import { ListenerSide } from "../../../../src/layers/kvm/mailbox/ListenerSide.ts"
import { Spin } from "../../../../src/layers/kvm/mailbox/Spin.ts"
import { standStill } from "../../../../src/layers/kvm/mailbox/standStill.ts"
import { makeWords } from "../../../../src/layers/kvm/mailbox/words.ts"

const INTERRUPTED = -4

interface Options {
  readonly vcpus: number
  readonly requests: number
  readonly spins: number
  /** Whether a request is answered in the turn that hears of it. */
  readonly isAnsweredAtOnce: boolean
  readonly pauseEvery?: number
  readonly standstillEvery?: number
}

/** Runs all requests of some vCPUs on threads of their own, and lets the threads leave. */
const runAll = async (options: Options) => {
  const { isAnsweredAtOnce, pauseEvery = Infinity, requests, spins, standstillEvery = Infinity, vcpus } = options
  const words = makeWords(vcpus)
  const guest = new Int32Array(new SharedArrayBuffer(vcpus * 8))
  const answered = Array.from({ length: vcpus }, () => 0)
  const counts = { answers: 0, pauses: 0, standstills: 0 }
  const sides = answered.map((_, vcpu) =>
    new DispatcherSide(words, vcpu, {
      arm: () => Atomics.store(guest, vcpu * 2 + 1, 1),
      disarm: () => Atomics.store(guest, vcpu * 2 + 1, 0),
      send: () => Atomics.notify(guest, vcpu * 2 + 1)
    }, (word) => Atomics.notify(words, word))
  )
  const left = answered.map((_, vcpu) => {
    const worker = new Worker(new URL("./guestThread.ts", import.meta.url), {
      workerData: { words, vcpu, spins, requests, guest }
    })
    return new Promise<void>((resolve, reject) => {
      worker.once("error", reject)
      worker.once("exit", () => resolve())
    })
  })
  const problem = await new Promise<string | undefined>((resolve) => {
    let isPausing = false
    const answer = (vcpu: number) => {
      counts.answers++
      answered[vcpu]!++
      guest[vcpu * 2] = answered[vcpu]! * 2
      if (counts.answers % pauseEvery === 0) pause()
      if (counts.answers % standstillEvery === 0) {
        counts.standstills++
        if (!standStill(words, sides, 10_000)) end("a vCPU did not come")
      }
      go(vcpu)
    }
    const go = (vcpu: number) => {
      if (!isPausing) sides[vcpu]!.run()
    }
    const pause = () => {
      isPausing = true
      for (const side of sides) side.recall()
      resumeWhenPaused()
    }
    // A pause in the middle of a turn has to be over in another.
    const resumeWhenPaused = () => {
      setImmediate(() => {
        if (sides.some(({ isOut }) => isOut)) return resumeWhenPaused()
        counts.pauses++
        isPausing = false
        for (const [vcpu, made] of answered.entries()) if (made < requests) sides[vcpu]!.run()
      })
    }
    const onBack = (vcpu: number, result: number) => {
      const side = sides[vcpu]!
      if (side.isGone) {
        if (sides.every(({ isGone }) => isGone)) end(undefined)
        return
      }
      if (result === INTERRUPTED) return go(vcpu)
      if (result !== answered[vcpu]! + 1) return end(`vCPU ${vcpu} says ${result} after ${answered[vcpu]} answers`)
      if (result === requests) {
        answered[vcpu]!++
        return side.leave()
      }
      if (isAnsweredAtOnce) answer(vcpu)
      else setImmediate(() => answer(vcpu))
    }
    const close = listen({
      words,
      side: new ListenerSide(words, sides, new Spin({ most: spins, tries: true })),
      onBack,
      defer: setImmediate
    })
    const end = (why: string | undefined) => {
      close()
      resolve(why)
    }
    for (const side of sides) side.run()
  })
  assert.isUndefined(problem)
  await Promise.all(left)
  return { ...counts, answered }
}

describe("mailbox between threads", () => {
  it("100,000 requests of two vCPUs, none lost", async () => {
    const { answered } = await runAll({ vcpus: 2, requests: 50_000, spins: 1000, isAnsweredAtOnce: true })
    assert.deepStrictEqual(answered, [50_000, 50_000])
  })

  it("requests that are answered in a later turn, by sides that sleep at once", async () => {
    const { answered } = await runAll({ vcpus: 3, requests: 3000, spins: 0, isAnsweredAtOnce: false })
    assert.deepStrictEqual(answered, [3000, 3000, 3000])
  })

  it("pauses in between", async () => {
    const { answered, pauses } = await runAll({
      vcpus: 2,
      requests: 5000,
      spins: 100,
      isAnsweredAtOnce: true,
      pauseEvery: 50
    })
    assert.deepStrictEqual(answered, [5000, 5000])
    assert.isAbove(pauses, 50)
  })

  it("standstills in between", async () => {
    const { answered, standstills } = await runAll({
      vcpus: 2,
      requests: 5000,
      spins: 100,
      isAnsweredAtOnce: true,
      standstillEvery: 50
    })
    assert.deepStrictEqual(answered, [5000, 5000])
    assert.isAbove(standstills, 50)
  })

  it("a standstill gives up a runner that does not come", () => {
    const words = makeWords(1)
    const kick = { arm: () => undefined, disarm: () => undefined, send: () => undefined }
    const side = new DispatcherSide(words, 0, kick, () => undefined)
    assert.isTrue(standStill(words, [side], 1))
    side.run()
    assert.isFalse(standStill(words, [side], 1))
  })

  it("runners that are sent away before they ran", async () => {
    const words = makeWords(1)
    const side = new DispatcherSide(words, 0, {
      arm: assert.fail,
      disarm: assert.fail,
      send: assert.fail
    }, (word) => Atomics.notify(words, word))
    side.recall()
    side.leave()
    const guest = new Int32Array(new SharedArrayBuffer(8))
    const worker = new Worker(new URL("./guestThread.ts", import.meta.url), {
      workerData: { words, vcpu: 0, spins: 0, requests: 1, guest }
    })
    await new Promise((resolve) => worker.once("exit", resolve))
    assert.isTrue(side.hear())
    assert.isTrue(side.isGone)
  })
})
