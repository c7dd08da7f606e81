import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import * as Emulated from "upcall/layers/Emulated"
import * as Simulated from "upcall/layers/Simulated"
import * as VirtualMachine from "upcall/services/VirtualMachine"
import * as Generator from "upcall/testing/Generator"
import * as GuestProgram from "upcall/testing/GuestProgram"
import * as GuestRun from "upcall/testing/GuestRun"
import * as TestMachine from "upcall/testing/TestMachine"
import { Control, make, Register } from "./Timer.ts"
import { TimerModel } from "./TimerModel.ts"

const BASE = 0xf000_0000
const IRQ = 5
const CASES = 1000
const SEED = 1
const TIMEOUT_MS = 60_000

const names = Object.keys(Register) as Array<keyof typeof Register>
const timer = make({ base: BASE, irq: IRQ })

type Operation =
  | { readonly _tag: "Write"; readonly register: keyof typeof Register; readonly word: number }
  | { readonly _tag: "Wait"; readonly micros: number }

const operation: Generator.Generator<Operation> = Generator.oneOf<Operation>(
  Generator.map(Generator.integer(1, 12), (micros) => ({ _tag: "Wait", micros })),
  Generator.map(
    Generator.all([Generator.elementOf(names), Generator.integer(0, 12)]),
    ([register, word]) => ({ _tag: "Write", register, word })
  )
)

const show = (step: Operation): string =>
  step._tag === "Wait" ? `wait ${step.micros} us` : `${step.register} := ${step.word}`

/** Does the operations on a timer and on the model; after each, the guest must see the same of both. */
const firstDifference = (operations: ReadonlyArray<Operation>) =>
  Effect.scoped(Effect.gen(function*() {
    const guest = yield* TestMachine.make()
    yield* guest.attach(timer)
    const model = new TimerModel()
    for (const [index, step] of operations.entries()) {
      if (step._tag === "Wait") {
        yield* guest.advance(`${step.micros} micros`)
        for (let i = 0; i < step.micros; i++) model.tick()
      } else {
        yield* guest.mmioWrite(BASE + Register[step.register], 4, BigInt(step.word))
        model.write(Register[step.register], step.word)
      }
      for (const name of names) {
        const [is, should] = [Number(yield* guest.mmioRead(BASE + Register[name], 4)), model.read(Register[name])]
        if (is !== should) return { index, problem: `${name} is ${is} and should be ${should}` }
      }
      if ((yield* guest.isHigh(IRQ)) !== model.interrupts) {
        return { index, problem: `the line should be ${model.interrupts ? "high" : "low"}` }
      }
    }
    return undefined
  }))

/** What a person needs of a failure: the smallest operations, what is wrong after them, and how to see it again. */
const report = (found: Generator.CheckResult<ReadonlyArray<Operation>, unknown>) =>
  Effect.gen(function*() {
    if (found._tag !== "Falsified") return Generator.formatFailure(found)
    const operations = found.shrunkInput
    const difference = yield* firstDifference(operations)
    return [
      `the timer and its model differ in case ${found.runs} of seed ${SEED}; the smallest such case:`,
      "",
      ...operations.map((step, index) => `  ${index + 1}. ${show(step)}`),
      `  => ${difference?.problem}`,
      "",
      `to see it again: REPLAY='${found.replay}' npx vitest run`
    ].join("\n")
  })

describe("the timer", () => {
  it.effect("counts down, interrupts, and is acknowledged", () =>
    Effect.gen(function*() {
      const guest = yield* TestMachine.make()
      yield* guest.attach(timer)
      yield* guest.mmioWrite(BASE + Register.LOAD, 4, 10n)
      yield* guest.mmioWrite(BASE + Register.CTRL, 4, BigInt(Control.ENABLE | Control.INTERRUPT))
      yield* guest.advance("4 micros")
      assert.strictEqual(yield* guest.mmioRead(BASE + Register.VALUE, 4), 6n)
      yield* guest.advance("6 micros")
      assert.isTrue(yield* guest.isHigh(IRQ))
      yield* guest.mmioWrite(BASE + Register.STATUS, 4, 1n)
      assert.isFalse(yield* guest.isHigh(IRQ))
    }))

  it.effect(`does what its model does, in ${CASES} cases`, () =>
    Effect.gen(function*() {
      const found = yield* Generator.check(
        Generator.array(operation, { maxLength: 12 }),
        (operations) => Effect.map(firstDifference(operations), (difference) => difference === undefined),
        { runs: CASES, size: 30, seed: SEED, replay: process.env["REPLAY"] }
      )
      if (found._tag !== "Passed") assert.fail(yield* report(found))
    }), TIMEOUT_MS)

  // The same device on two hypervisors, driven by machine code: what a guest reads of it is the same.
  const program = Result.getOrThrow(GuestProgram.assemble([
    { _tag: "Store", address: BASE + Register.LOAD, size: 4, value: 20 },
    { _tag: "Store", address: BASE + Register.CTRL, size: 4, value: Control.ENABLE },
    { _tag: "Work", rounds: 10_000 },
    // At a port access the emulated CPU tells how far it got; a load in one block with the work would come too early.
    { _tag: "PortOut", port: 0x80, size: 1, value: 0 },
    { _tag: "Load", address: BASE + Register.STATUS, size: 4 },
    { _tag: "Keep" },
    { _tag: "Load", address: BASE + Register.CTRL, size: 4 },
    { _tag: "Keep" },
    { _tag: "Store", address: BASE + Register.STATUS, size: 4, value: 1 },
    { _tag: "Load", address: BASE + Register.STATUS, size: 4 },
    { _tag: "Keep" }
  ]))
  const expires = Effect.gen(function*() {
    const run = yield* GuestRun.run(program, timer)
    assert.deepStrictEqual([...new Uint32Array(run.results.slice().buffer)], [1, 0, 0])
  })
  it.effect("expires for a guest on Simulated", () =>
    expires.pipe(Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer)))))
  it.effect("expires for a guest on Emulated", () =>
    expires.pipe(
      Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Emulated.layerWith({ clock: "Virtual" }))))
    ))
})
