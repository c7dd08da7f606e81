/** guests/count64 on the one hypervisor of ours with 64-bit vCPUs. Its image is compared with its source elsewhere. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as Kvm from "../../src/layers/Kvm.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import { kvmProblem } from "../support/kvm.ts"
import * as Count64 from "./count64.ts"

const ROUNDS = 200
// Two writes and two reads a round, and the outcome.
const REQUESTS = 4 * ROUNDS + 1

const problem = kvmProblem()

const machinesOn = (placement: "Inline" | "Worker") =>
  VirtualMachine.layer.pipe(Layer.provideMerge(Kvm.layerWith({ interruptController: "None", placement })))

/** Changes the answer of a vCPU's so-manieth read of this kind. */
const spoilNth = (vcpu: number, tag: IoRequest["_tag"], nth: number, flip: bigint) => {
  let count = 0
  return (request: IoRequest, value: bigint) =>
    request.vcpu === vcpu && request._tag === tag && ++count === nth ? value ^ flip : value
}

describe.skipIf(problem !== undefined).each(["Inline", "Worker"] as const)(
  `guests/count64 on KVM, placement %s${problem === undefined ? "" : ` (skipped: ${problem})`}`,
  (placement) => {
    const machines = machinesOn(placement)
    const on = (options: Parameters<typeof Count64.run>[0]) => Effect.provide(Count64.run(options), machines)

    it.live("counts on four vCPUs at once, and every answer is right", () =>
      Effect.gen(function*() {
        const vcpus = 4
        const { asked, counts, end } = yield* on({ vcpus, rounds: ROUNDS, meetEvery: 10 })
        assert.deepStrictEqual(end, { _tag: "Exited", status: 0 })
        assert.strictEqual(counts.meetings(), ROUNDS / 10)
        for (let vcpu = 0; vcpu < vcpus; vcpu++) {
          const low = BigInt(Count64.tagOf(vcpu) + ROUNDS)
          assert.strictEqual(counts.outcome(vcpu), 1n)
          assert.strictEqual(counts.port(vcpu), low)
          assert.strictEqual(counts.memory(vcpu), (~low & 0xffff_ffffn) << 32n | low)
          // The first one asks for the outcomes, too, and exits.
          if (vcpu === 0) assert.isAtLeast(asked[vcpu]!, REQUESTS + vcpus + 1)
          else assert.strictEqual(asked[vcpu], REQUESTS)
        }
      }))

    it.live("counts on one vCPU, and on as many as there can be", () =>
      Effect.gen(function*() {
        for (const vcpus of [1, 16]) {
          const { end } = yield* on({ vcpus, rounds: 20 })
          assert.deepStrictEqual(end, { _tag: "Exited", status: 0 })
        }
      }))

    it.live("tells whose answer was wrong, and what it had asked", () =>
      Effect.gen(function*() {
        const port = yield* on({ vcpus: 4, rounds: 20, spoil: spoilNth(2, "PortRead", 7, 1n) })
        assert.deepStrictEqual(port.end, { _tag: "Exited", status: 0x22 })
        const memory = yield* on({ vcpus: 4, rounds: 20, spoil: spoilNth(3, "MmioRead", 20, 1n << 63n) })
        assert.deepStrictEqual(memory.end, { _tag: "Exited", status: 0x33 })
      }))
  }
)
