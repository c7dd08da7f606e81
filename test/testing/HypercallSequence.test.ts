import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import * as Generator from "../../src/testing/Generator.ts"
import * as HypercallSequence from "../../src/testing/HypercallSequence.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"

const three = Simulated.layerWith({ maxVms: 3, configuredVcpus: 5 })

/** A gate that answers some calls in its own way. */
const lying = (answer: (id: number, param1: bigint, call: Effect.Effect<number>) => Effect.Effect<number>) =>
  Layer.effectContext(Effect.gen(function*() {
    const context = yield* Effect.context<Hypervisor | Simulated.Capabilities>()
    const gate = Context.get(context, HypercallGate)
    return Context.add(context, HypercallGate, {
      ...gate,
      call: (id, param1, param2) => answer(id, param1, gate.call(id, param1, param2))
    })
  })).pipe(Layer.provide(Simulated.layerWith({ maxVms: 3 })))

/** The smallest sequence for which a hypervisor differs from the rules. */
const smallest = Effect.gen(function*() {
  const abilities = yield* HypercallSequence.learn
  const result = yield* Generator.check(
    HypercallSequence.sequences(abilities),
    (calls) => Effect.map(HypercallSequence.firstDifference(calls, abilities), (found) => found === undefined),
    { runs: 400, seed: 1, maxShrinks: 400 }
  )
  return result._tag === "Falsified" ? HypercallSequence.format(result.shrunkInput).split("\n") : []
})

describe("HypercallSequence", () => {
  for (
    const [name, layer] of [
      ["Simulated", three],
      ["Simulated that polls", Simulated.layerWith({ completion: "Polling", maxVms: 2 })],
      ["Emulated", Emulated.layerWith({ clock: "Virtual", maxVms: 3 })]
    ] as const
  ) {
    it.effect(`${name} does what the rules say`, () =>
      Effect.map(smallest, (found) => assert.deepStrictEqual(found, [])).pipe(
        Effect.provide(layer as Layer.Layer<Hypervisor>)
      ))
  }

  it.effect("learns how many VMs there can be and how many vCPUs are configured, and leaves no VM", () =>
    Effect.gen(function*() {
      const first = yield* HypercallSequence.learn
      assert.strictEqual(first.maxVms, 3)
      assert.strictEqual(first.configuredVcpus, 5)
      assert.strictEqual(first.irqLines, 16)
      assert.isTrue(first.resumes)
      assert.deepStrictEqual(yield* HypercallSequence.learn, first)
      const calls = yield* Generator.sample(HypercallSequence.sequences(first), { count: 20, seed: 1 })
      for (const sequence of calls) yield* HypercallSequence.firstDifference(sequence, first)
      assert.strictEqual((yield* HypercallSequence.learn).maxVms, 3)
    }).pipe(Effect.provide(three)))

  it.effect("sequences get far: each call is made in vain and with success", () =>
    Effect.gen(function*() {
      const abilities = yield* HypercallSequence.learn
      const seen = new Set<string>()
      let mostVms = 0
      for (
        const calls of yield* Generator.sample(HypercallSequence.sequences(abilities), { count: 500, seed: 1 })
      ) {
        assert.isAtMost(calls.length, HypercallSequence.MAX_CALLS)
        for (const [index, [{ results, vcpus }, { vms }]] of HypercallSequence.rules(calls, abilities).entries()) {
          const call = calls[index]!
          seen.add(`${call._tag} ${results[0] === 0 && (call._tag !== "Create" || vcpus !== undefined)}`)
          mostVms = Math.max(mostVms, vms.filter((vm) => vm !== undefined).length)
        }
      }
      const tags = Object.keys(HypercallSequence.Call.cases)
      const never = tags.flatMap((tag) =>
        [`${tag} true`, `${tag} false`].filter((each) =>
          !seen.has(each) && each !== "Unknown true" && each !== "WriteSlot false"
        )
      )
      assert.deepStrictEqual(never, [])
      assert.strictEqual(mostVms, 3)
    }).pipe(Effect.provide(three)))

  it.effect.prop("a sequence survives JSON", [
    HypercallSequence.sequences({ profile: TestMachine.profile, resumes: true, irqLines: 16 })
  ], ([calls]) =>
    Effect.gen(function*() {
      const codec = Schema.toCodecJson(HypercallSequence.HypercallSequence)
      const text = JSON.stringify(yield* Schema.encodeEffect(codec)(calls))
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(codec)(JSON.parse(text)), calls)
      assert.strictEqual(HypercallSequence.format(calls).split("\n").length, Math.max(1, calls.length))
    }))

  it.effect("finds a gate that destroys a VM that was never paused", () =>
    Effect.map(
      smallest,
      (found) => assert.deepStrictEqual(found, ["1. CREATE_VM with affinity 0x1", "2. DESTROY_VM VM 0"])
    ).pipe(
      Effect.provide(
        lying((id, vm, call) => id === HypercallId.DestroyVm && vm !== 0xffffn ? Effect.map(call, () => 0) : call)
      )
    ))

  it.effect("finds a gate whose refused PAUSE pauses all the same", () =>
    Effect.map(
      smallest,
      (found) => assert.deepStrictEqual(found, ["1. CREATE_VM with affinity 0x1", "2. PAUSE_VM VM 0"])
    ).pipe(
      Effect.provide(
        lying((id, _vm, call) =>
          id === HypercallId.PauseVm ? Effect.map(call, (result) => result === 0 ? -1 : result) : call
        )
      )
    ))

  it.effect("finds a gate that calls each vCPU's registers legal", () =>
    Effect.map(smallest, (found) => {
      assert.strictEqual(found.length, 2)
      assert.include(found[1]!, "SET_VCPU_REGS VM 0")
    }).pipe(
      Effect.provide(
        lying((id, vm, call) => id === HypercallId.SetVcpuRegs && vm !== 0xffffn ? Effect.map(call, () => 0) : call)
      )
    ))

  it.effect("finds a gate that takes a call on a VM that is gone", () =>
    Effect.map(smallest, (found) => assert.isAtMost(found.length, 2)).pipe(
      Effect.provide(lying((id, vm, call) => id === HypercallId.StartVm && vm === 0xffffn ? Effect.succeed(0) : call))
    ))
})
