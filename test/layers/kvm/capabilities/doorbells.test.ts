/** Writes that the kernel counts in the client's stead. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { Errno } from "../../../../src/domain/Errno.ts"
import { type IoRange, mmio, ports } from "../../../../src/domain/IoRange.ts"
import { CapabilityError, type DoorbellPlace, Doorbells } from "../../../../src/services/Hypervisor.ts"
import * as g from "../../../support/guest.ts"
import { brief, recorder, until } from "../../../support/machines.ts"
import { flat, leavingNoFile, onKvm, problem, skipped } from "./guests.ts"

const PORT = 0x510
const MMIO = 0xd000_0000
const GO_ON = 0x500

const withoutChips = onKvm({ interruptController: "None" })

const port = (bytes: 1 | 2 | 4 = 1): DoorbellPlace => ({ space: "Port", address: PORT, bytes })

const describePlace = (place: DoorbellPlace): string =>
  `${place.space} ${place.address.toString(16)} ${place.bytes} ${place.match}`

/** Runs a guest to its end, with doorbells at these places: how often each rang, and what a client saw. */
const rung = (program: Uint8Array, ...places: ReadonlyArray<DoorbellPlace>) =>
  Effect.gen(function*() {
    const doorbells = yield* Doorbells
    const vm = yield* flat(program)
    const seen = yield* recorder(vm, { ranges: [ports(0x500, 0x5ff), mmio(MMIO, MMIO + 0xfff)], answer: () => 0x77 })
    const bells = yield* Effect.all(places.map((place) => doorbells.attach(vm.id, place)))
    const running = yield* vm.start
    yield* running.ended
    return { rings: yield* Effect.all(bells.map(({ rings }) => rings)), seen: seen.map(brief) }
  })

describe.skipIf(problem !== undefined)(`doorbells on KVM${skipped}`, () => {
  it.live("a write to a port rings, and no client is asked", () =>
    Effect.gen(function*() {
      const { rings, seen } = yield* rung(g.code(g.loop(100, g.out(PORT, 7)), g.out(GO_ON, 1), g.stop), port())
      assert.deepStrictEqual(rings, [100n])
      assert.deepStrictEqual(seen, ["w1 port 500 1"])
    }).pipe(withoutChips, leavingNoFile))

  it.live("a read of the place, and writes of other sizes, go to the client", () =>
    Effect.gen(function*() {
      const program = g.code(g.out(PORT, 1, 2), g.inp(PORT), g.out(PORT, 2), g.stop)
      const { rings, seen } = yield* rung(program, port())
      assert.deepStrictEqual(rings, [1n])
      assert.deepStrictEqual(seen, ["w2 port 510 1", "r1 port 510"])
    }).pipe(withoutChips))

  it.live("with a value, only writes of it ring", () =>
    Effect.gen(function*() {
      const values = [5, 6, 7, 6, 8]
      const program = g.code(values.flatMap((value) => g.out(PORT, value, 4)), g.stop)
      const { rings, seen } = yield* rung(program, { ...port(4), match: 6n }, { ...port(4), match: 7n })
      assert.deepStrictEqual(rings, [2n, 1n])
      assert.deepStrictEqual(seen, ["w4 port 510 5", "w4 port 510 8"])
    }).pipe(withoutChips))

  it.live("without a size, a write of any size rings", () =>
    Effect.gen(function*() {
      const program = g.code(
        g.storeImmediate(MMIO, 1, 1),
        g.storeImmediate(MMIO, 1, 2),
        g.storeImmediate(MMIO, 1, 4),
        g.storeImmediate(MMIO + 1, 1, 1),
        g.stop
      )
      const { rings, seen } = yield* rung(program, { space: "Mmio", address: MMIO })
      assert.deepStrictEqual(rings, [3n])
      assert.deepStrictEqual(seen, ["w1 mmio d0000001 1"])
    }).pipe(withoutChips))

  it.live("read-only memory has room for one", () =>
    Effect.gen(function*() {
      const doorbells = yield* Doorbells
      const vm = yield* flat(g.code(g.storeImmediate(MMIO, 1), g.stop))
      yield* vm.mapMemory({ guestAddress: MMIO, bytes: 0x1000, rights: { read: true, write: false, execute: true } })
      const { rings } = yield* doorbells.attach(vm.id, { space: "Mmio", address: MMIO, bytes: 4 })
      const running = yield* vm.start
      yield* running.ended
      assert.strictEqual(yield* rings, 1n)
    }).pipe(withoutChips))

  it.live("a place where no guest could ring is refused, with what to do", () =>
    Effect.gen(function*() {
      const doorbells = yield* Doorbells
      const vm = yield* flat(g.code(g.stop))
      const mem = (address: number): DoorbellPlace => ({ space: "Mmio", address, bytes: 4 })
      const refused: ReadonlyArray<readonly [DoorbellPlace, RegExp]> = [
        [mem(0x1000), /writable RAM at 0x1000/],
        [mem(-4), /not in the space of guest addresses/],
        [mem(0.5), /not in the space of guest addresses/],
        [mem(2 ** 52 - 2), /not in the space of guest addresses/],
        [{ ...port(4), address: 0xfffe }, /not in the space of ports/],
        [{ ...port(), bytes: 8 }, /a write to a port is of 1, 2, 4 bytes, not 8/],
        [{ ...mem(MMIO), bytes: 3 as 1 }, /of 1, 2, 4, 8 bytes, not 3/],
        [{ ...port(), match: 256n }, /no write of 1 bytes carries 256/],
        [{ ...port(), match: -1n }, /no write of 1 bytes carries -1/],
        [{ space: "Port", address: PORT, match: 1n }, /give it in bytes/]
      ]
      for (const [place, message] of refused) {
        const refusal = yield* Effect.flip(doorbells.attach(vm.id, place))
        assert.strictEqual(refusal.result, -Errno.EINVAL, describePlace(place))
        assert.match(refusal.message, message)
      }
      yield* doorbells.attach(vm.id, { ...port(), match: 3n })
      yield* doorbells.attach(vm.id, { ...port(), match: 4n })
      const taken = yield* Effect.flip(doorbells.attach(vm.id, { ...port(), match: 3n }))
      assert.match(taken.message, /EEXIST.*another doorbell hears the same writes/)
      const noVm = yield* Effect.flip(doorbells.attach(99, port()))
      assert.include(noVm.message, "there is no VM of this id")
    }).pipe(withoutChips, leavingNoFile))

  it.live("a place is free again when its scope is closed", () =>
    Effect.gen(function*() {
      const doorbells = yield* Doorbells
      const vm = yield* flat(g.code(g.out(PORT, 1), g.out(PORT + 1, 1), g.stop))
      const seen = yield* recorder(vm, { ranges: [ports(PORT, PORT)] })
      const gone = yield* Effect.scoped(doorbells.attach(vm.id, port()))
      const other = yield* doorbells.attach(vm.id, { ...port(), address: PORT + 1 })
      const running = yield* vm.start
      yield* running.ended
      assert.strictEqual(seen.length, 1)
      // The number of its file may be the other's by now.
      assert.strictEqual(yield* gone.rings, 0n)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(gone.awaitRing)))
      assert.strictEqual(yield* other.rings, 1n)
    }).pipe(withoutChips, leavingNoFile))

  it.live("who waits hears of a ring after which the doorbell is taken away", () =>
    Effect.gen(function*() {
      const doorbells = yield* Doorbells
      const vm = yield* flat(g.code(g.out(PORT, 1), g.out(PORT, 1), g.inp(GO_ON), g.stop))
      const scope = yield* Scope.make()
      const bell = yield* Scope.provide(doorbells.attach(vm.id, port()), scope)
      // Asked while the guest stands there, so that no turn of the event loop is between.
      yield* vm.io.register({
        name: "go on",
        ranges: [ports(GO_ON, GO_ON)],
        handle: () => Effect.as(Scope.close(scope, Exit.void), 0)
      })
      const waiting = yield* Effect.forkChild(bell.awaitRing, { startImmediately: true })
      yield* vm.start
      assert.strictEqual(yield* Fiber.join(waiting), 2n)
    }).pipe(withoutChips, leavingNoFile))

  it.live("who waits hears each ring once, and of the end of the VM", () =>
    Effect.gen(function*() {
      const doorbells = yield* Doorbells
      const outer = yield* Effect.scope
      const heard = yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* flat(g.code(g.out(PORT, 1), g.forever(g.inp(GO_ON))))
        yield* recorder(vm, { ranges: [ports(GO_ON, GO_ON)] })
        const bell = yield* Scope.provide(doorbells.attach(vm.id, port()), outer)
        const impatient = yield* Effect.forkChild(bell.awaitRing, { startImmediately: true })
        const waiting = yield* Effect.forkIn(bell.awaitRing, outer, { startImmediately: true })
        yield* Fiber.interrupt(impatient)
        yield* vm.start
        const count = yield* Fiber.join(waiting)
        const last = yield* Effect.forkIn(Effect.exit(bell.awaitRing), outer, { startImmediately: true })
        return { count, last, bell }
      }))
      assert.strictEqual(heard.count, 1n)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(heard.last)))
      assert.strictEqual(yield* heard.bell.rings, 0n)
    }).pipe(withoutChips, leavingNoFile))
})

/** A guest that rings again and again, and asks the client in between. */
const RINGING = g.code(g.forever(g.out(PORT, 1), g.inp(GO_ON)))

const client = (ranges: ReadonlyArray<IoRange>, program = RINGING) =>
  Effect.gen(function*() {
    const vm = yield* flat(program)
    const seen: Array<string> = []
    const scope = yield* Scope.fork(yield* Effect.scope)
    const registered = yield* Scope.provide(
      vm.io.register({ name: "bell", ranges, handle: (request) => Effect.sync(() => void seen.push(brief(request))) }),
      scope
    )
    return { vm, seen, scope, client: registered }
  })

describe.skipIf(problem !== undefined)(`a client's doorbells on KVM${skipped}`, () => {
  it.live("tell how often the guest rang", () =>
    Effect.gen(function*() {
      const program = g.code(g.loop(1000, g.out(PORT, 1)), g.inp(GO_ON), g.stop)
      const { client: bell, seen, vm } = yield* client([ports(GO_ON, PORT)], program)
      const counts: Array<bigint> = []
      const total = () => counts.reduce((sum, count) => sum + count, 0n)
      yield* bell.doorbell(port()).pipe(
        Stream.runForEach((count) => Effect.sync(() => void counts.push(count))),
        Effect.forkScoped({ startImmediately: true })
      )
      const running = yield* vm.start
      yield* running.ended
      yield* until(() => total() === 1000n)
      assert.isTrue(counts.every((count) => count > 0n))
      assert.deepStrictEqual(seen, ["r1 port 500"])
    }).pipe(withoutChips, leavingNoFile))

  const ways: Record<string, (parts: Effect.Success<ReturnType<typeof client>>) => Effect.Effect<unknown, unknown>> = {
    "its range given back": ({ client: bell }) => bell.removeRange(ports(PORT, PORT)),
    "its range moved": ({ client: bell }) => bell.moveRange(ports(PORT, PORT), ports(0x600, 0x600)),
    "its client's scope": ({ scope }) => Scope.close(scope, Exit.void)
  }
  for (const [name, end] of Object.entries(ways)) {
    it.live(`end with ${name}, and the writes are requests again`, () =>
      Effect.gen(function*() {
        const parts = yield* client([ports(PORT, PORT), ports(GO_ON, GO_ON)])
        const { client: bell, vm } = parts
        const left: Array<string> = []
        yield* vm.io.registerDefault({
          name: "rest",
          handle: (request) => Effect.sync(() => void left.push(brief(request)))
        })
        let rings = 0
        const listening = yield* bell.doorbell(port()).pipe(
          Stream.runForEach(() => Effect.sync(() => rings++)),
          Effect.forkScoped({ startImmediately: true })
        )
        yield* vm.start
        yield* until(() => rings > 0)
        assert.notInclude(left, "w1 port 510 1")
        yield* end(parts)
        yield* Fiber.join(listening)
        yield* until(() => left.includes("w1 port 510 1"))
      }).pipe(withoutChips, leavingNoFile))
  }

  it.live("end with who listens, and the writes are requests again", () =>
    Effect.gen(function*() {
      const { client: bell, seen, vm } = yield* client([ports(PORT, PORT), ports(GO_ON, GO_ON)])
      const listening = yield* Effect.forkChild(Stream.runDrain(Stream.take(bell.doorbell(port()), 1)), {
        startImmediately: true
      })
      yield* vm.start
      yield* Fiber.join(listening)
      yield* until(() => seen.includes("w1 port 510 1"))
    }).pipe(withoutChips, leavingNoFile))

  it.live("stay when others go", () =>
    Effect.gen(function*() {
      const { client: bell, seen, vm } = yield* client([ports(PORT, PORT), ports(GO_ON, GO_ON), ports(0x600, 0x600)])
      let rings = 0
      yield* bell.doorbell(port()).pipe(
        Stream.runForEach(() => Effect.sync(() => rings++)),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* Effect.scoped(Effect.gen(function*() {
        const other = yield* vm.io.register({
          name: "other",
          ranges: [ports(0x700, 0x700), ports(0x701, 0x701)],
          handle: () => Effect.void
        })
        yield* Effect.forkScoped(Stream.runDrain(other.doorbell({ ...port(), address: 0x700 })), {
          startImmediately: true
        })
        yield* other.removeRange(ports(0x700, 0x700))
      }))
      yield* bell.removeRange(ports(0x600, 0x600))
      yield* vm.start
      yield* until(() => rings > 2)
      assert.notInclude(seen, "w1 port 510 1")
    }).pipe(withoutChips, leavingNoFile))

  it.live("end with the VM", () =>
    Effect.gen(function*() {
      const listening = yield* Effect.scoped(Effect.gen(function*() {
        const { client: bell, vm } = yield* client([ports(PORT, PORT)])
        yield* vm.start
        return yield* Effect.forkDetach(Stream.runDrain(bell.doorbell(port())), { startImmediately: true })
      }))
      yield* Fiber.join(listening)
    }).pipe(withoutChips, leavingNoFile))

  it.live("are the client's own: refused at another's place, at nobody's, and once it is closed", () =>
    Effect.gen(function*() {
      const { client: bell, scope, vm } = yield* client([ports(PORT, PORT + 1), mmio(MMIO, MMIO + 7)])
      yield* recorder(vm, { name: "other", ranges: [ports(PORT + 2, PORT + 3)] })
      const refusal = (place: DoorbellPlace) =>
        Effect.map(
          Effect.flip(Stream.runDrain(bell.doorbell(place))),
          (error) => error instanceof CapabilityError ? error.problem : error.reason._tag
        )
      assert.strictEqual(yield* refusal(port(4)), "Overlap")
      assert.strictEqual(yield* refusal({ ...port(), address: PORT + 2 }), "Overlap")
      assert.strictEqual(yield* refusal({ ...port(), address: PORT - 1 }), "NotOwned")
      assert.strictEqual(yield* refusal({ space: "Mmio", address: MMIO + 4, bytes: 8 }), "NotOwned")
      assert.strictEqual(yield* refusal({ ...port(), address: -1 }), "BadRange")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* refusal(port()), "Closed")
    }).pipe(withoutChips, leavingNoFile))
})
