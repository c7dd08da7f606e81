import { assert, describe, it } from "@effect/vitest"
import * as Stats from "../../src/cli/Stats.ts"
import * as Table from "../../src/cli/Table.ts"
import { Port, VcpuId } from "../../src/domain/Address.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as VmState from "../../src/domain/VmState.ts"

const access = (vcpu: number) => ({ vcpu: VcpuId.make(vcpu), port: Port.make(0x3fd), size: 1 as const })
const read = (vcpu: number): IoRequest => ({ _tag: "PortRead", ...access(vcpu) })
const write = (vcpu: number): IoRequest => ({ _tag: "PortWrite", ...access(vcpu), value: 7 })

describe("Stats", () => {
  it("counts reads and writes by client and times each vCPU's request by itself", () => {
    let now = 0
    const stats = new Stats.Stats(() => now)
    const { onComplete, onRequest } = stats.observer
    onRequest!("uart", read(0))
    now = 5
    onRequest!("pit", write(1))
    now = 10
    onComplete!("uart", read(0), 0x60)
    now = 30
    onComplete!("pit", write(1), undefined)
    onRequest!("uart", write(0))
    onComplete!("uart", write(0), undefined)

    assert.deepStrictEqual(stats.perClient, [
      { client: "uart", requests: 2, reads: 1, writes: 1, p50: 0, p99: 10, max: 10 },
      { client: "pit", requests: 1, reads: 0, writes: 1, p50: 25, p99: 25, max: 25 }
    ])
  })

  it("prints durations with at most three digits", () => {
    assert.deepStrictEqual(
      [0, 1, 999, 999.6, 1000, 1234, 12_345, 999_400, 999_600, 3_100_000, 71_700_000_000].map(Stats.formatNanos),
      ["0 ns", "1 ns", "999 ns", "1 us", "1 us", "1.23 us", "12.3 us", "999 us", "1 ms", "3.1 ms", "71.7 s"]
    )
  })

  it("prints the life of a VM on one line", () => {
    const { created, running } = VmState
    const paused: VmState.VmState = { _tag: "Paused", started: true }
    assert.strictEqual(
      Stats.formatTransitions([
        { _tag: "VmTransition", from: created, command: "Start", to: running },
        { _tag: "VmTransition", from: running, command: "Pause", to: paused }
      ]),
      "Created -Start-> Running -Pause-> Paused"
    )
    assert.strictEqual(Stats.formatTransitions([]), "none")
  })

  it("a table lines its columns up and has a sum", () => {
    const client = { client: "uart", requests: 1234, reads: 1000, writes: 234, p50: 900, p99: 12_000, max: 12_000 }
    assert.deepStrictEqual(Stats.formatClients([client]).split("\n"), [
      "client  requests  reads  writes     p50    p99    max",
      "------  --------  -----  ------  ------  -----  -----",
      "uart       1,234  1,000     234  900 ns  12 us  12 us",
      "all        1,234  1,000     234"
    ])
  })

  it("a table without rows has its titles", () => {
    assert.strictEqual(Table.format([{ title: "a", align: "left" }], []), "a\n-")
  })
})
