import { assert, describe, it } from "@effect/vitest"
import { Spin } from "../../../../src/layers/kvm/mailbox/Spin.ts"

/** Waits for what comes after so many looks; how often it looked, and whether it came meanwhile. */
const wait = (spin: Spin, comesAfter: number, isOtherAwake = true) => {
  spin.begin(isOtherAwake)
  for (let looks = 0;; looks++) {
    if (looks === comesAfter) {
      spin.came()
      return { looks, isSeen: true }
    }
    if (!spin.again()) {
      spin.missed()
      return { looks, isSeen: false }
    }
  }
}

const seen = (spin: Spin, comesAfter: number, waits: number) =>
  Array.from({ length: waits }, () => wait(spin, comesAfter)).filter(({ isSeen }) => isSeen).length

describe("Spin", () => {
  it("never looks twice when it may not", () => {
    const spin = new Spin({ most: 0, tries: true })
    assert.deepStrictEqual(wait(spin, Infinity), { looks: 0, isSeen: false })
    assert.strictEqual(seen(spin, 1, 1000), 0)
  })

  it("never looks more often than it may", () => {
    const spin = new Spin({ most: 500, tries: true })
    for (const comesAfter of [Infinity, 499, 3, Infinity, 400, 500]) assert.isAtMost(wait(spin, comesAfter).looks, 500)
  })

  it("sees all that comes while it may look", () => {
    for (const comesAfter of [0, 10, 300, 900]) {
      assert.strictEqual(seen(new Spin({ most: 1000, tries: false }), comesAfter, 1000), 1000)
    }
  })

  it("soon looks little for what does not come in time, and finds out when it does", () => {
    const spin = new Spin({ most: 1000, tries: false })
    for (let waits = 0; waits < 16; waits++) wait(spin, Infinity)
    assert.isAtMost(wait(spin, Infinity).looks, 40)
    assert.isAtLeast(seen(spin, 800, 100), 80)
  })

  it("needs fewer looks to give up what comes sooner", () => {
    const spin = new Spin({ most: 1000, tries: false })
    seen(spin, 900, 10)
    seen(spin, 5, 200)
    assert.isAtMost(wait(spin, Infinity).looks, 100)
  })

  it("does not look for one that sleeps, but one of two sides tries now and then", () => {
    const looks = (tries: boolean) => {
      const spin = new Spin({ most: 1000, tries })
      return Array.from({ length: 160 }, () => wait(spin, Infinity, false).looks).filter((count) => count > 0)
    }
    assert.deepStrictEqual(looks(false), [])
    assert.deepStrictEqual(looks(true), Array.from({ length: 10 }, () => 1000))
  })
})
