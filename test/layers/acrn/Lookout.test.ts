import { assert, describe, it } from "@effect/vitest"
import { SlotStateCode } from "../../../src/domain/abi/IoRequestSlot.ts"
import { Errno } from "../../../src/domain/Errno.ts"
import { Lookout } from "../../../src/layers/acrn/Lookout.ts"
import { slotPlaces } from "../../../src/layers/acrn/Waiters.ts"
import { BELL, FINISHED, STATE, STOP, THREAD_ID, ThreadState, WORDS } from "../../../src/layers/acrn/waiterWords.ts"
import { waitForRequests } from "../../../src/layers/acrn/waitForRequests.ts"

const { Complete, Free, Pending, Processing } = SlotStateCode

const make = (vcpus = 2) => {
  const words = new Int32Array(new SharedArrayBuffer(WORDS * 4))
  const page = new Int32Array(1024)
  const lookout = new Lookout(words, page, vcpus, slotPlaces)
  const set = (vcpu: number, state: number, kernelHandled = 0) => {
    page[vcpu * 64 + slotPlaces.state] = state
    page[vcpu * 64 + slotPlaces.kernelHandled] = kernelHandled
  }
  for (let vcpu = 0; vcpu < 16; vcpu++) set(vcpu, Free)
  const look = () => {
    const told: Array<number> = []
    assert.strictEqual(lookout.look((vcpu) => told.push(vcpu)), told.length > 0)
    return told
  }
  const finish = (vcpu: number) => {
    words[FINISHED + vcpu]!++
  }
  return { finish, look, lookout, page, set, words }
}

describe("Lookout", () => {
  it("tells of each request once, until it is finished", () => {
    const { finish, look, lookout, set } = make()
    assert.deepStrictEqual(look(), [])
    set(1, Processing)
    assert.deepStrictEqual(look(), [1])
    assert.deepStrictEqual(look(), [])
    assert.isTrue(lookout.isOutstanding)
    set(0, Processing)
    assert.deepStrictEqual(look(), [0])
    set(1, Complete)
    finish(1)
    assert.deepStrictEqual(look(), [])
    assert.isTrue(lookout.isOutstanding)
    set(0, Complete)
    finish(0)
    assert.isFalse(lookout.isOutstanding)
    set(1, Processing)
    assert.deepStrictEqual(look(), [1])
  })

  it("leaves alone what is the driver's, a kernel client's, or of no vCPU", () => {
    const { look, set } = make()
    set(0, Pending)
    set(1, Processing, 1)
    set(2, Processing)
    assert.deepStrictEqual(look(), [])
  })

  it("a request that came before the last one was counted as finished is not missed", () => {
    const { finish, look, set } = make()
    set(0, Processing)
    look()
    // The driver was notified and has the next request already, but the count comes after the notification.
    assert.deepStrictEqual(look(), [])
    finish(0)
    assert.deepStrictEqual(look(), [0])
  })

  it("a request that is finished while it is told of is not taken for outstanding", () => {
    const { finish, lookout, set } = make(1)
    set(0, Processing)
    lookout.look(finish)
    assert.isFalse(lookout.isOutstanding)
    // The next one is there already.
    const told: Array<number> = []
    lookout.look((vcpu) => told.push(vcpu))
    assert.deepStrictEqual(told, [0])
  })
})

describe("waitForRequests", () => {
  const start = (attach: (call: number) => number, vcpus = 1) => {
    const made = make(vcpus)
    const told: Array<number> = []
    let calls = 0
    const run = () =>
      waitForRequests({
        words: made.words,
        lookout: made.lookout,
        vcpus,
        attach: () => attach(++calls),
        tell: (vcpu) => told.push(vcpu),
        threadId: () => 4711
      })
    const stop = () => {
      made.words[STOP] = 1
      made.words[BELL]!++
    }
    return { ...made, calls: () => calls, run, stop, told }
  }

  it("waits in the driver, tells what came, and does not wait there while it is outstanding", () => {
    const bench = start((call) => {
      if (call === 1) {
        bench.set(0, Processing)
        return 0
      }
      bench.stop()
      return 0
    })
    const original = bench.told.push.bind(bench.told)
    // Whoever is told finishes the request at once: the count is up when the thread looks again.
    bench.told.push = (vcpu) => {
      bench.set(vcpu, Complete)
      bench.finish(vcpu)
      return original(vcpu)
    }
    assert.strictEqual(bench.run(), 0)
    assert.deepStrictEqual([...bench.told], [0])
    assert.strictEqual(bench.calls(), 2)
    assert.strictEqual(bench.words[STATE], ThreadState.Ended)
    assert.strictEqual(bench.words[THREAD_ID], 4711)
  })

  it("looks at the page, with pauses, while another vCPU's request is outstanding", () => {
    let looks = 0
    const bench = start(() => assert.fail("the driver does not wait while it has a request"), 2)
    bench.set(0, Processing)
    const look = bench.lookout.look.bind(bench.lookout)
    bench.lookout.look = (tell) => {
      looks++
      if (looks === 5) bench.set(1, Processing)
      if (looks === 8) bench.stop()
      return look(tell)
    }
    assert.strictEqual(bench.run(), 0)
    assert.deepStrictEqual(bench.told, [0, 1])
  })

  it("a driver that always returns is asked at intervals", () => {
    const bench = start((call) => {
      if (call === 6) bench.stop()
      return 0
    })
    let pauses = 0
    const wait = Atomics.wait
    Atomics.wait = ((...args: Parameters<typeof wait>) => {
      pauses++
      return wait(...args)
    }) as typeof wait
    try {
      bench.run()
    } finally {
      Atomics.wait = wait
    }
    assert.strictEqual(bench.calls(), 6)
    assert.isAtLeast(pauses, 5)
  })

  it("goes on after a signal, ends with what the driver refuses, and does not begin what is over", () => {
    const bench = start((call) => call === 1 ? -Errno.EINTR : -Errno.ENODEV)
    assert.strictEqual(bench.run(), -Errno.ENODEV)
    assert.strictEqual(bench.calls(), 2)
    assert.strictEqual(bench.words[STATE], ThreadState.Ended)
    assert.strictEqual(bench.run(), 0)
    assert.strictEqual(bench.calls(), 2)
  })
})
