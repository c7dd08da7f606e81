import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Outcome from "../../src/cli/Outcome.ts"
import { VcpuId } from "../../src/domain/Address.ts"
import { EndReason } from "../../src/domain/EndReason.ts"

const status = (reason: EndReason) => Outcome.exitStatus({ _tag: "Ended", reason })

describe("Outcome", () => {
  it("has the exit status that the help promises", () => {
    const vcpu = VcpuId.make(0)
    assert.strictEqual(status({ _tag: "Exited", status: 42 }), 42)
    assert.strictEqual(status({ _tag: "Halted" }), 0)
    assert.strictEqual(status({ _tag: "Shutdown", vcpu, cause: "a triple fault" }), 70)
    assert.strictEqual(status({ _tag: "ResetRequested", source: "port 0xcf9" }), 0)
    assert.strictEqual(status({ _tag: "UnsupportedInstruction", vcpu, address: 0x1000, bytes: [0x0f] }), 70)
    assert.strictEqual(status({ _tag: "InternalError", vcpu, cause: "emulation" }), 70)
    assert.strictEqual(status({ _tag: "Fault", message: "no" }), 70)
    assert.strictEqual(Outcome.exitStatus({ _tag: "TimedOut", seconds: 1 }), 124)
    assert.strictEqual(Outcome.exitStatus({ _tag: "Quit" }), 0)
    assert.strictEqual(Outcome.exitStatus({ _tag: "Interrupted" }), 130)
    assert.strictEqual(Outcome.exitStatus({ _tag: "OutputClosed" }), 141)
  })

  it.prop("an end with the status of a crash is told", [EndReason], ([reason]) => {
    const isCrash = reason._tag !== "Exited" && status(reason) === Outcome.EXIT.crash
    assert.strictEqual(Outcome.isWorthTelling({ _tag: "Ended", reason }), isCrash)
  })

  it.prop("every end has a status that a process can have, and a sentence", [EndReason], ([reason]) => {
    assert.isTrue(Schema.is(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))(status(reason)))
    assert.isNotEmpty(Outcome.format({ _tag: "Ended", reason }))
  })
})
