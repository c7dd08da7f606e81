import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { join } from "node:path"

const runner = join(import.meta.dirname, "../../bench/run.ts")
const run = (...args: ReadonlyArray<string>) => spawnSync(process.execPath, [runner, ...args], { encoding: "utf8" })

describe("npm run bench", () => {
  it("prints a line of JSON for a figure, with its peer and the ratio of the two", () => {
    const { status, stdout } = run("--quick", "slot_round_trip_ns")
    assert.strictEqual(status, 0)
    const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line))
    assert.strictEqual(lines.length, 1)
    const [{ metric, peer, ratio, samples, unit, value }] = lines
    assert.strictEqual(metric, "sim.slot_round_trip_ns")
    assert.strictEqual(unit, "ns")
    assert.isAbove(value, 0)
    assert.isString(peer.name)
    assert.approximately(ratio, value / peer.value, ratio / 100)
    assert.isAbove(samples.length, 1)
  })

  it("names the figures there are when none matches", () => {
    const { status, stderr } = run("no-such-figure")
    assert.strictEqual(status, 2)
    assert.include(stderr, "emulated.linux_boot_s")
  })
})
