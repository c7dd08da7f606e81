/**
 * ACRN commit 36f6a412b. NOTIFY_REQUEST_FINISH and SET_VCPU_REGS took the id of a vCPU from the Service VM and used the
 * vCPU with that id, whether the User VM had one or not.
 *
 * Here both refuse with -EPERM and touch nothing, in the form through the gate and in the one without an Effect.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import { EPERM, makeRaw } from "../support/gate.ts"
import * as g from "../support/guest.ts"
import { onSimulated } from "../support/machines.ts"
import { makeBareVm } from "./support/bareVm.ts"

// The VM has vCPUs 0 and 1.
const nobody = [2, 3, 15, 16, 0xffff]

describe("ACRN 36f6a412b: a vCPU id goes unchecked into a hypercall", () => {
  it.effect("NOTIFY_REQUEST_FINISH for a vCPU that the VM has not", () =>
    Effect.gen(function*() {
      const raw = yield* makeRaw
      const { vmId } = yield* makeBareVm(raw, g.code(g.stop))
      for (const vcpu of nobody) {
        assert.strictEqual(yield* raw.notify(vmId, BigInt(vcpu)), EPERM)
        assert.strictEqual(raw.gate.notifyFinish(vmId, vcpu), EPERM)
      }
      assert.strictEqual(yield* raw.notify(vmId, 1n), 0)
    }).pipe(onSimulated()))

  it.effect("SET_VCPU_REGS for a vCPU that the VM has not", () =>
    Effect.gen(function*() {
      const raw = yield* makeRaw
      const { vmId } = yield* makeBareVm(raw, g.code(g.stop))
      const registers = VcpuRegisters.flat32({ entry: 0x1000, stack: 0x8000 })
      for (const vcpu of nobody) assert.strictEqual(yield* raw.setRegisters(vmId, vcpu, registers), EPERM)
      assert.strictEqual(yield* raw.setRegisters(vmId, 1, registers), 0)
    }).pipe(onSimulated()))
})
