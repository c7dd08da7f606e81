import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { VcpuSnapshot, VcpuSnapshotJson } from "../../src/domain/VcpuSnapshot.ts"
import { snapshots } from "../support/vcpuSnapshots.ts"

const encode = Schema.encodeUnknownResult(VcpuSnapshotJson)
const decode = Schema.decodeUnknownResult(VcpuSnapshotJson)
const check = Schema.decodeUnknownResult(Schema.toType(VcpuSnapshot))

const problemOf = (value: unknown): string =>
  Result.match(check(value), { onFailure: ({ message }) => message, onSuccess: () => "" })

describe("VcpuSnapshot", () => {
  it.prop("survives JSON, as text", [snapshots()], ([snapshot]) => {
    const text = JSON.stringify(Result.getOrThrow(encode(snapshot)))
    assert.deepStrictEqual(Result.getOrThrow(decode(JSON.parse(text))), snapshot)
  })

  it.prop("names what does not fit", [snapshots()], ([snapshot]) => {
    assert.strictEqual(problemOf(snapshot), "")
    const { general, special } = snapshot
    const bad: ReadonlyArray<readonly [unknown, RegExp]> = [
      [{ ...snapshot, xsave: new Uint8Array(575) }, /576 bytes[^]*"xsave"/],
      [{ ...snapshot, localApic: new Uint8Array(4096) }, /1024 bytes[^]*"localApic"/],
      [{ ...snapshot, general: { ...general, r15: 1n << 64n } }, /"general"[^]*"r15"/],
      [{ ...snapshot, special: { ...special, cs: { ...special.cs, selector: -1 } } }, /"cs"[^]*"selector"/],
      [{ ...snapshot, activity: "Dreaming" }, /"activity"/],
      [{ ...snapshot, events: { ...snapshot.events, nmi: { ...snapshot.events.nmi, pending: 3 } } }, /"pending"/]
    ]
    for (const [value, expected] of bad) assert.match(problemOf(value), expected)
  })

  it("takes no text that is none of its own", () => {
    assert.isTrue(Result.isFailure(decode({})))
    assert.isTrue(Result.isFailure(decode({ activity: "Running", xsave: "?" })))
  })
})
