/** Which pages of a guest's memory were written. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { Errno } from "../../../../src/domain/Errno.ts"
import { ports } from "../../../../src/domain/IoRange.ts"
import { readExecute } from "../../../../src/domain/MemoryRegion.ts"
import { DirtyLog } from "../../../../src/services/Hypervisor.ts"
import type { CreatedVm } from "../../../../src/services/Vm.ts"
import * as g from "../../../support/guest.ts"
import { recorder } from "../../../support/machines.ts"
import { flat, onKvm, problem, skipped } from "./guests.ts"

const PAGE = 0x1000
const HIGH = 0x100_0000
const NEXT = 0x500

const withoutChips = onKvm({ interruptController: "None" })

const write = (page: number): g.Code => g.storeImmediate(page * PAGE + 0x10, 1)
const next: g.Code = g.inp(NEXT)

/** Does something each time the guest asks for the next part of it. */
const between = (vm: CreatedVm, ...parts: ReadonlyArray<Effect.Effect<unknown, unknown>>) =>
  Effect.gen(function*() {
    let part = 0
    yield* vm.io.register({
      name: "next",
      ranges: [ports(NEXT, NEXT)],
      handle: () => Effect.as(parts[part++]!, 0)
    })
    const running = yield* vm.start
    yield* running.ended
    assert.strictEqual(part, parts.length)
    return yield* running.pause
  })

describe.skipIf(problem !== undefined)(`the dirty log of KVM${skipped}`, () => {
  it.live("has the pages that were written since it was last taken, by the guest and by its host", () =>
    Effect.gen(function*() {
      const log = yield* DirtyLog
      const program = g.code(
        [write(5), write(20)].flat(),
        next,
        [write(21), write(21)].flat(),
        next,
        write(9),
        next,
        g.stop
      )
      const vm = yield* flat(program)
      const { take } = yield* log.track(vm.id)
      const taken: Array<ReadonlyArray<number>> = []
      const note = Effect.map(take, (pages) => void taken.push(pages))
      yield* between(
        vm,
        note,
        Effect.andThen(note, vm.memory.write(7 * PAGE - 1, new Uint8Array(PAGE + 2))),
        note
      )
      assert.deepStrictEqual(taken, [[5, 20], [21], [6, 7, 8, 9]])
    }).pipe(withoutChips))

  it.live("begins and ends with its scope", () =>
    Effect.gen(function*() {
      const log = yield* DirtyLog
      const vm = yield* flat(g.code(write(5), next, write(6), next, write(7), next, g.stop))
      const scope = yield* Scope.make()
      const { take } = yield* Effect.suspend(() => Scope.provide(log.track(vm.id), scope))
      const again = yield* Effect.flip(log.track(vm.id))
      assert.strictEqual(again.result, -Errno.EBUSY)
      assert.include(again.message, "tracked already")
      const pages: Array<unknown> = []
      const note = (effect: Effect.Effect<unknown, unknown>) => Effect.map(effect, (value) => void pages.push(value))
      yield* between(
        vm,
        note(take),
        Effect.andThen(Scope.close(scope, Exit.void), note(Effect.map(Effect.flip(take), ({ result }) => result))),
        note(Effect.scoped(Effect.flatMap(log.track(vm.id), (tracked) => tracked.take)))
      )
      assert.deepStrictEqual(pages, [[5], -Errno.ENODEV, []])
    }).pipe(withoutChips))

  it.live("follows memory that is mapped, cut and taken away", () =>
    Effect.gen(function*() {
      const log = yield* DirtyLog
      const high = HIGH / PAGE
      const vm = yield* flat(
        g.code(
          write(high),
          write(high + 2),
          write(high + 3),
          write(3),
          next,
          write(high + 9),
          write(high + 16),
          next,
          g.stop
        )
      )
      yield* vm.mapMemory({ guestAddress: HIGH, bytes: 8 * PAGE })
      const { take } = yield* log.track(vm.id)
      yield* vm.mapMemory({ guestAddress: HIGH + 8 * PAGE, bytes: 8 * PAGE, rights: readExecute })
      yield* vm.mapMemory({ guestAddress: HIGH + 16 * PAGE, bytes: PAGE })
      yield* recorder(vm, { ranges: [ports(NEXT, NEXT)] })
      const running = yield* vm.start
      yield* running.ended
      const paused = yield* running.pause
      yield* paused.unmapMemory({ guestAddress: HIGH + PAGE, bytes: PAGE })
      // What could not be written was not written, and what the cut slot had is not forgotten.
      assert.deepStrictEqual(yield* take, [3, high, high + 2, high + 3, high + 16])
      assert.deepStrictEqual(yield* take, [])
      yield* paused.memory.write(HIGH + 2 * PAGE, Uint8Array.of(1))
      assert.deepStrictEqual(yield* take, [high + 2])
    }).pipe(withoutChips))

  it.live("is refused for no VM, and is over with the VM", () =>
    Effect.gen(function*() {
      const log = yield* DirtyLog
      const outer = yield* Effect.scope
      const noVm = yield* Effect.flip(log.track(99))
      assert.include(noVm.message, "there is no VM of this id")
      const { take } = yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* flat(g.code(g.stop))
        return yield* Scope.provide(log.track(vm.id), outer)
      }))
      assert.strictEqual((yield* Effect.flip(take)).result, -Errno.ENODEV)
    }).pipe(withoutChips))
})
