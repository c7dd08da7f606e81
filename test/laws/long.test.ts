/** The script that tries laws for long, on few cases. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { kvmProblem } from "../support/kvm.ts"

const root = join(import.meta.dirname, "../..")

const run = (...options: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["scripts/laws-long.ts", ...options], {
    cwd: root,
    encoding: "utf8"
  })
  return { status, stderr, lines: stdout.trimEnd().split("\n") }
}

describe("laws:long", () => {
  it("tells each law's cases, and the sum as JSON", () => {
    const { lines, status } = run("--runs", "3", "--law", "7", "--law", "8", "--layer", "simulated")
    assert.strictEqual(status, 0)
    assert.lengthOf(lines, 3)
    assert.match(lines[0]!, /^law 7 on simulated: 3 cases in [\d.]+ s$/)
    assert.match(lines[1]!, /^law 8 on simulated: 3 cases in [\d.]+ s$/)
    const { seconds, ...sum } = JSON.parse(lines[2]!) as Record<string, number>
    assert.deepStrictEqual(sum, { cases: 6, skipped: 0, failed: 0 })
    assert.isNumber(seconds)
  })

  const kvm = kvmProblem()

  it.skipIf(kvm !== undefined)(`tries them on KVM${kvm === undefined ? "" : ` (skipped: ${kvm})`}`, () => {
    const { lines, status } = run("--runs", "3", "--law", "16", "--layer", "kvm", "--layer", "kvm-worker")
    assert.strictEqual(status, 0)
    assert.match(lines[0]!, /^law 16 on kvm: 3 cases in [\d.]+ s$/)
    assert.match(lines[1]!, /^law 16 on kvm-worker: 3 cases in [\d.]+ s$/)
  })

  it.skipIf(kvm === undefined)("tells why it cannot try them on KVM, where it cannot", () => {
    const { status, stderr } = run("--law", "16", "--layer", "kvm")
    assert.strictEqual(status, 2)
    assert.strictEqual(stderr.trimEnd(), kvm)
  })

  it("refuses options that are none", () => {
    for (
      const [options, problem] of [
        [["--law", "20"], /there is no law 20/],
        [["--layer", "constructor"], /there is no layer constructor; there are simulated, polling, emulated/],
        [["--runs", "0"], /--runs 0 is not a positive integer/],
        [["--replay", "x"], /--replay wants one --law and one --layer/],
        [["--law", "7", "--layer", "polling", "--rusn", "3"], /rusn/]
      ] as const
    ) {
      const { status, stderr } = run(...options)
      assert.isAbove(status!, 0)
      assert.match(stderr, problem)
    }
  })

  it("tells of a token that replays nothing", () => {
    const { lines, status } = run("--law", "7", "--layer", "simulated", "--replay", "x")
    assert.strictEqual(status, 1)
    assert.deepInclude(JSON.parse(lines.at(-1)!), { cases: 0, skipped: 0, failed: 1 })
  })
})
