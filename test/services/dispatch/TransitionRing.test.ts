/** The ring of transitions: what each reader gets and loses, against a list that keeps all. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Deferred, Effect, Fiber, Schema, Stream } from "effect"
import { RequestTransition } from "../../../src/domain/RequestState.ts"
import { StepCode, TransitionRing } from "../../../src/services/dispatch/TransitionRing.ts"
import { turns } from "../../support/machines.ts"

const CAPACITY = 16_384

const make = () => {
  const heard: Array<boolean> = []
  const ring = new TransitionRing((isRead) => heard.push(isRead))
  let written = 0
  const write = (count: number) => {
    for (let i = 0; i < count; i++) ring.write(written % 16, written, written++ % 3)
  }
  return { ring, heard, write, written: () => written }
}

type Setup = ReturnType<typeof make>

/** Reads batches; `epochs` are those of the steps it got, `gate` is awaited after each batch. */
const read = ({ ring }: Setup, gate: Effect.Effect<unknown> = Effect.void) =>
  Effect.gen(function*() {
    const epochs: Array<number> = []
    let batches = 0
    const fiber = yield* Effect.forkChild(
      Stream.runForEachArray(ring.stream, (batch) =>
        Effect.andThen(
          Effect.sync(() => {
            batches++
            epochs.push(...batch.map(({ epoch }) => epoch))
          }),
          gate
        )),
      { startImmediately: true }
    )
    return { epochs, batches: () => batches, leave: Fiber.interrupt(fiber) }
  })

const span = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

describe("TransitionRing", () => {
  it.effect("gives legal steps as they were written", () =>
    Effect.gen(function*() {
      const { ring, write } = make()
      const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(ring.stream, 48)), {
        startImmediately: true
      })
      write(48)
      const steps = yield* Fiber.join(taking)
      assert.isTrue(steps.every(Schema.is(RequestTransition)))
      assert.deepStrictEqual<ReadonlyArray<number>>(steps.map(({ vcpu }) => vcpu), span(0, 48).map((i) => i % 16))
      const codes: Record<string, number> = StepCode
      assert.deepStrictEqual(steps.map(({ command }) => codes[command]), span(0, 48).map((i) => i % 3))
    }))

  it.effect("keeps epochs up to the largest safe integer, and the last vCPU", () =>
    Effect.gen(function*() {
      const { ring } = make()
      const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(ring.stream, 1)), { startImmediately: true })
      ring.write(15, Number.MAX_SAFE_INTEGER, StepCode.Answer)
      const [step] = yield* Fiber.join(taking)
      assert.deepStrictEqual<unknown>(step, {
        _tag: "RequestTransition",
        vcpu: 15,
        epoch: Number.MAX_SAFE_INTEGER,
        from: "Pending",
        command: "Answer",
        to: "Complete"
      })
    }))

  const Step = Schema.TaggedUnion({
    Write: { count: Schema.Literals([1, 2, 100, CAPACITY - 1, CAPACITY, CAPACITY + 1, 2 * CAPACITY + 5]) },
    Enter: {},
    Leave: { reader: Schema.Natural },
    Turn: {}
  })

  it.effect.prop("each reader gets the newest that the ring holds, in order; what it lost is counted to the step", [
    Arbitrary.array(Arbitrary.schema(Step), { minLength: 3, maxLength: 20 })
  ], ([steps]) =>
    Effect.gen(function*() {
      const setup = make()
      const { ring, write, written } = setup
      const readers: Array<{ read: Effect.Success<ReturnType<typeof read>>; got: Array<number>; position: number }> = []
      let lost = 0
      // The reference: readers that take all there is at each turn.
      const takeAll = (reader: (typeof readers)[number], isTaken: boolean) => {
        const first = Math.max(reader.position, written() - CAPACITY)
        lost += first - reader.position
        if (isTaken) reader.got.push(...span(first, written()))
        reader.position = written()
      }
      for (const step of steps) {
        switch (step._tag) {
          case "Write":
            if (readers.length > 0) write(step.count)
            break
          case "Enter":
            readers.push({ read: yield* read(setup), got: [], position: written() })
            break
          case "Leave": {
            const [reader] = readers.splice(step.reader % readers.length || 0, 1)
            if (reader === undefined) break
            takeAll(reader, false)
            yield* reader.read.leave
            break
          }
          case "Turn":
            yield* turns(3)
            for (const reader of readers) takeAll(reader, true)
        }
        const waiting = readers.reduce(
          (sum, { position }) => sum + Math.max(0, written() - CAPACITY - position),
          0
        )
        assert.strictEqual(ring.lost, lost + waiting)
      }
      yield* turns(3)
      for (const reader of readers) {
        takeAll(reader, true)
        assert.deepStrictEqual(reader.read.epochs, reader.got)
        yield* reader.read.leave
      }
      assert.strictEqual(ring.lost, lost)
    }), { arbitrary: { runs: 100 } })

  it.effect("a reader that is busy with a batch gets what came meanwhile as one, and loses the oldest", () =>
    Effect.gen(function*() {
      const setup = make()
      const gate = yield* Deferred.make<void>()
      const slow = yield* read(setup, Deferred.await(gate))
      setup.write(3)
      yield* turns(3)
      for (let i = 0; i < 10; i++) {
        setup.write(CAPACITY / 4)
        yield* turns(1)
      }
      assert.deepStrictEqual([slow.batches(), setup.ring.lost], [1, 1.5 * CAPACITY])
      yield* Deferred.succeed(gate, undefined)
      yield* turns(3)
      assert.strictEqual(slow.batches(), 2)
      assert.deepStrictEqual(slow.epochs, [0, 1, 2, ...span(setup.written() - CAPACITY, setup.written())])
      assert.strictEqual(setup.ring.lost, 1.5 * CAPACITY)
    }))

  it.effect("a reader never runs in the stack that writes, and once for a batch", () =>
    Effect.gen(function*() {
      const setup = make()
      const reader = yield* read(setup)
      for (let batch = 1; batch <= 3; batch++) {
        setup.write(1000)
        assert.strictEqual(reader.epochs.length, 1000 * (batch - 1))
        yield* turns(2)
        assert.deepStrictEqual([reader.epochs.length, reader.batches()], [1000 * batch, batch])
      }
    }))

  it.effect("tells whether anybody reads, and takes no memory before", () =>
    Effect.gen(function*() {
      const setup = make()
      assert.deepStrictEqual(setup.heard, [])
      const one = yield* read(setup)
      const two = yield* read(setup)
      yield* one.leave
      assert.deepStrictEqual(setup.heard, [true, true, true])
      yield* two.leave
      assert.deepStrictEqual(setup.heard, [true, true, true, false])
    }))
})
