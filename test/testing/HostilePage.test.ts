/** What a hostile page does, and that neither a guest that it spares nor another VM feels it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Result, Schema, Scope } from "effect"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { IoRequest } from "../../src/domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../../src/domain/Limits.ts"
import { SLOT_WORDS } from "../../src/domain/SlotWords.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import type { Upcalls } from "../../src/services/Upcalls.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import * as FaultyUpcalls from "../../src/testing/FaultyUpcalls.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as HostilePage from "../../src/testing/HostilePage.ts"
import * as SlotHistory from "../../src/testing/SlotHistory.ts"
import {
  Asked,
  device,
  guests,
  leftovers,
  machinesOver,
  nothing,
  runGuests,
  undisturbed
} from "../support/adversaries.ts"
import { EPERM, makeRaw } from "../support/gate.ts"
import { turns } from "../support/machines.ts"

const SEEDS = Array.from({ length: 40 }, (_, seed) => seed + 1)

const over = (options: HostilePage.Options) => machinesOver(HostilePage.layer(options))

/** What the Service VM's own steps on slots may be, from the state that it saw last. */
const OWN_STEPS = ["Pending to Processing", "Pending to Complete", "Processing to Complete"]
const names = new Map<number, string>(Object.entries(Slot.SlotStateCode).map(([name, code]) => [code, name]))
const nameOf = (code: number): string => names.get(code) ?? String(code)

/** Watches the pages from above the peer, as the Service VM sees them. */
const watching = (history: { of?: SlotHistory.SlotHistory }) =>
  Layer.effect(
    ServiceMemory,
    Effect.map(ServiceMemory, (below) => {
      const watched = SlotHistory.watch(below)
      history.of = watched.history
      return watched.memory
    })
  )

const attacked = <A, E, R>(options: HostilePage.Options, program: Effect.Effect<A, E, R>) =>
  attackedUnder(Layer.empty, options, program)

const attackedUnder = <Out, E1, A, E, R>(
  above: Layer.Layer<Out, E1, ServiceMemory | Upcalls>,
  options: HostilePage.Options,
  program: Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const result = yield* program
    const hostile = yield* HostilePage.HostilePage
    return { result, faults: yield* hostile.faults, count: yield* hostile.count, left: yield* leftovers }
  }).pipe(
    Effect.provide(machinesOver(above.pipe(Layer.provideMerge(HostilePage.layer(options)))), { local: true })
  )

const kinds = (faults: ReadonlyArray<HostilePage.PageAttack>) => new Set(faults.map(({ attack }) => attack))

describe("a survivable peer", () => {
  it.effect("is not seen by a guest, by its devices, or in what is left", () =>
    Effect.gen(function*() {
      const expected = yield* undisturbed
      const seen = new Set<HostilePage.Attack>()
      for (const seed of SEEDS) {
        const run = yield* attacked({ mode: "Survivable", seed }, runGuests)
        assert.deepStrictEqual(run.result, expected, `seed ${seed}`)
        assert.deepStrictEqual(run.left, nothing, `seed ${seed}`)
        assert.isAbove(run.count, 50)
        for (const attack of kinds(run.faults)) seen.add(attack)
      }
      assert.sameMembers([...seen], [...HostilePage.SurvivableAttack.literals])
    }))

  it.effect("is not seen by a guest whose hypervisor polls", () =>
    Effect.gen(function*() {
      const expected = yield* undisturbed
      const layer = machinesOver(HostilePage.layer({ mode: "Survivable", seed: 3 }), {
        simulated: { completion: "Polling" }
      })
      assert.deepStrictEqual(yield* Effect.provide(runGuests, layer, { local: true }), expected)
    }))

  it.effect("leaves the slots of vCPUs alone but for what was read and is not completed", () =>
    Effect.gen(function*() {
      const { faults } = yield* attacked({ mode: "Survivable", seed: 7 }, runGuests)
      for (const { attack, field, slot } of faults) {
        if (slot < guests.vcpus.length) {
          assert.include(["FetchedRequest", "KernelHandled", "UnownedBytes"], attack)
          assert.notStrictEqual(field, "state")
        }
        if (attack === "MissingVcpu") assert.isAtLeast(slot, guests.vcpus.length)
      }
    }))
})

describe("a hostile peer", () => {
  /** A VM whose page is attacked runs beside one whose page is not, and is closed in the middle. */
  const besides = (
    seed: number,
    options: Extract<HostilePage.Options, { readonly mode: "Hostile" }>,
    slowTurns?: number
  ) =>
    Effect.gen(function*() {
      const asked = new Asked()
      const history: { of?: SlotHistory.SlotHistory } = {}
      // A line that says things twice, so that slots are looked at while they are held.
      const line = FaultyUpcalls.layer({ mode: "Lossless", seed, vms: [1], rate: 1, faults: { Doubled: 1, Late: 1 } })
      const run = yield* attackedUnder(
        watching(history).pipe(Layer.provideMerge(line)),
        { ...options, vms: [1] },
        Effect.gen(function*() {
          const victim = yield* Scope.make()
          const running = yield* Effect.gen(function*() {
            const machines = yield* VirtualMachine
            const vm = yield* machines.create({ memoryBytes: guests.plan.memoryBytes, vcpus: 2 })
            yield* vm.attach(device(asked, slowTurns))
            yield* GuestRun.load(vm, guests)
            return yield* vm.start
          }).pipe(Scope.provide(victim))
          assert.strictEqual(running.id, 1)
          const bystander = yield* runGuests
          yield* turns(20)
          const end = yield* Effect.forkChild(running.ended, { startImmediately: true })
          yield* turns(20)
          const hasEnded = end.pollUnsafe() !== undefined
          yield* Scope.close(victim, Exit.void)
          yield* Fiber.await(end)
          return { bystander, hasEnded }
        })
      )
      assert.deepStrictEqual(run.left, nothing, `seed ${seed}`)
      assert.isAbove(run.count, 0)
      assert.isTrue(run.faults.every(({ vmId }) => vmId === 1))
      for (const request of asked.requests) {
        assert.isTrue(isRequest(request), JSON.stringify(request, (_, v: unknown) => String(v)))
        assert.isBelow(request.vcpu, 2)
      }
      // A vCPU has one request at a time, whatever its slot says.
      assert.deepStrictEqual(asked.overlapping, [], `seed ${seed}`)
      for (const event of history.of!.events()) {
        if (event._tag !== "Moved" || event.by !== "Service") continue
        assert.include(OWN_STEPS, `${nameOf(event.from)} to ${nameOf(event.to)}`, `seed ${seed}`)
      }
      return { ...run.result, faults: run.faults }
    })

  const isRequest = Schema.is(IoRequest)

  it.effect("harms its own VM at most: nothing throws, hangs or leaks, and another VM runs on undisturbed", () =>
    Effect.gen(function*() {
      const expected = yield* undisturbed
      const seen = new Set<HostilePage.Attack>()
      let ended = 0
      for (const seed of SEEDS) {
        const { bystander, faults, hasEnded } = yield* besides(seed, {
          mode: "Hostile",
          seed,
          rate: seed % 4 === 0 ? 1 : 0.1
        })
        assert.deepStrictEqual(bystander, expected, `seed ${seed}`)
        for (const attack of kinds(faults)) seen.add(attack)
        if (hasEnded) ended++
      }
      assert.sameMembers([...seen], [...HostilePage.Attack.literals])
      // Not a peer that only breaks the first request.
      assert.isAbove(ended, 0)
      assert.isBelow(ended, SEEDS.length)
    }))

  it.effect("that takes held slots back makes no device answer twice", () =>
    Effect.gen(function*() {
      const expected = yield* undisturbed
      let backToPending = 0
      for (const seed of SEEDS) {
        const { bystander, faults } = yield* besides(
          seed,
          { mode: "Hostile", seed, rate: 0.5, attacks: { StateBackwards: 1 } },
          12
        )
        assert.deepStrictEqual(bystander, expected, `seed ${seed}`)
        backToPending += faults.filter(({ to }) => to === BigInt(Slot.SlotStateCode.Pending)).length
      }
      assert.isAbove(backToPending, 10)
    }))
})

/** A request page by hand: one VM with as many vCPUs as asked for, and no vCPU that runs. */
const byHand = (vcpus: number) =>
  Effect.gen(function*() {
    const raw = yield* makeRaw
    const { vmId } = yield* raw.create((1n << BigInt(vcpus)) - 1n)
    const address = yield* raw.newPage()
    const memory = yield* ServiceMemory
    const page = Result.getOrThrow(memory.page(address))
    return { raw, vmId, address, memory, page, setPage: raw.setPage(vmId, BigInt(address)) }
  })

const bytesOf = (memory: ServiceMemory["Service"], address: number) => {
  const bytes = new Uint8Array(4096)
  Result.getOrThrow(memory.read(address, bytes))
  return [...bytes]
}

describe("the peer's attacks", () => {
  it.effect("are the same for the same seed, others for another, and valid", () =>
    Effect.gen(function*() {
      const first = yield* attacked({ mode: "Survivable", seed: 5 }, runGuests)
      const again = yield* attacked({ mode: "Survivable", seed: 5 }, runGuests)
      const other = yield* attacked({ mode: "Survivable", seed: 6 }, runGuests)
      assert.deepStrictEqual(again.faults, first.faults)
      assert.notDeepEqual(other.faults, first.faults)
      assert.strictEqual(first.count, first.faults.length)
      const isAttack = Schema.is(HostilePage.PageAttack)
      for (const fault of first.faults) {
        assert.isTrue(isAttack(fault), HostilePage.format(fault))
        assert.notStrictEqual(fault.from, fault.to)
      }
    }))

  it.effect("change the page itself, one field each, and stand in the log as they happened", () =>
    Effect.gen(function*() {
      const { address, memory, page, setPage } = yield* byHand(2)
      yield* setPage
      const hostile = yield* HostilePage.HostilePage
      const words = new Int32Array(SLOT_WORDS)
      for (let i = 0; i < 200; i++) {
        const before = bytesOf(memory, address)
        const count = yield* hostile.count
        if (i % 3 === 0) page.fetchRequest(i % 2 * SLOT_BYTES, words)
        else page.load32(i % 2 * SLOT_BYTES + Slot.SLOT_STATE_OFFSET)
        const after = bytesOf(memory, address)
        assert.strictEqual(yield* hostile.count, count + 1)
        const fault = (yield* hostile.faults).at(-1)!
        const at = fault.slot * SLOT_BYTES + fault.offset
        const changed = after.flatMap((byte, offset) => byte === before[offset] ? [] : [offset])
        assert.isAbove(changed.length, 0)
        assert.isTrue(changed.every((offset) => offset >= at && offset < at + 8), HostilePage.format(fault))
        assert.strictEqual(fault.read, i + 1)
      }
    }).pipe(Effect.provide(over({ mode: "Hostile", seed: 11 }), { local: true })))

  it.effect("make what is read twice read differently, and only until it is completed", () =>
    Effect.gen(function*() {
      const { page, setPage } = yield* byHand(1)
      yield* setPage
      const hostile = yield* HostilePage.HostilePage
      const words = new Int32Array(SLOT_WORDS)
      const fetch = () => {
        page.fetchRequest(0, words)
        return [...words]
      }
      // Nothing is fetched yet, so there is nothing to change.
      page.load32(Slot.SLOT_STATE_OFFSET)
      assert.strictEqual(yield* hostile.count, 0)
      const first = fetch()
      assert.notDeepEqual(fetch(), first)
      page.store32(Slot.SLOT_STATE_OFFSET, Slot.SlotStateCode.Complete)
      const count = yield* hostile.count
      page.load32(Slot.SLOT_STATE_OFFSET)
      page.load32(Slot.REQUEST_SIZE_OFFSET)
      assert.strictEqual(yield* hostile.count, count)
    }).pipe(Effect.provide(over({ mode: "Survivable", seed: 1, attacks: { FetchedRequest: 1 } }), { local: true })))

  it.effect("forget what was fetched when the hypervisor clears the slots", () =>
    Effect.gen(function*() {
      const { page, raw, setPage, vmId } = yield* byHand(1)
      yield* setPage
      const hostile = yield* HostilePage.HostilePage
      page.fetchRequest(0, new Int32Array(SLOT_WORDS))
      yield* raw.pause(vmId)
      assert.strictEqual(yield* raw.reset(vmId), 0)
      page.load32(Slot.SLOT_STATE_OFFSET)
      assert.strictEqual(yield* hostile.count, 0)
    }).pipe(Effect.provide(over({ mode: "Survivable", seed: 1, attacks: { FetchedRequest: 1 } }), { local: true })))

  it.effect("spare pages that are no VM's, other memory, and VMs that are not named", () =>
    Effect.gen(function*() {
      const hostile = yield* HostilePage.HostilePage
      const { address, memory, page, raw, setPage, vmId } = yield* byHand(1)
      page.load32(0)
      assert.strictEqual(yield* hostile.count, 0)
      yield* setPage
      const scratch = Result.getOrThrow(memory.page(raw.scratch))
      scratch.load32(0)
      bytesOf(memory, address)
      assert.strictEqual(yield* hostile.count, 0)
      page.load32(0)
      assert.strictEqual(yield* hostile.count, 1)
      const second = yield* byHand(1)
      yield* second.setPage
      assert.strictEqual(second.vmId, 2)
      second.page.load32(0)
      assert.strictEqual(yield* hostile.count, 1)
      yield* raw.pause(vmId)
      yield* raw.destroy(vmId)
      page.load32(0)
      assert.strictEqual(yield* hostile.count, 1)
    }).pipe(Effect.provide(over({ mode: "Hostile", seed: 1, vms: [1] }), { local: true })))

  it.effect("spare a page that the hypervisor refused, and whoever gets its memory next", () =>
    Effect.gen(function*() {
      const hostile = yield* HostilePage.HostilePage
      const memory = yield* ServiceMemory
      const raw = yield* makeRaw
      const { vmId } = yield* raw.create(1n)
      const scope = yield* Scope.make()
      const address = yield* raw.newPage().pipe(Scope.provide(scope))
      const page = Result.getOrThrow(memory.page(address))
      yield* raw.pause(vmId)
      assert.strictEqual(yield* raw.setPage(vmId, BigInt(address)), EPERM)
      page.load32(0)
      assert.strictEqual(yield* hostile.count, 0)
      yield* raw.reset(vmId)
      assert.strictEqual(yield* raw.setPage(vmId, BigInt(address)), 0)
      page.load32(0)
      assert.strictEqual(yield* hostile.count, 1)
      yield* Scope.close(scope, Exit.void)
      const next = yield* memory.allocate({ bytes: 4096, purpose: { _tag: "HypercallStructures" } })
      assert.strictEqual(next.address, address)
      Result.getOrThrow(memory.page(address)).load32(0)
      assert.strictEqual(yield* hostile.count, 1)
    }).pipe(Effect.provide(over({ mode: "Hostile", seed: 1 }), { local: true })))

  it.effect("know which slots are of no vCPU, and find none when all 16 are", () =>
    Effect.gen(function*() {
      const { page, setPage } = yield* byHand(MAX_VCPUS)
      yield* setPage
      page.load32(0)
      assert.strictEqual(yield* (yield* HostilePage.HostilePage).count, 0)
    }).pipe(Effect.provide(over({ mode: "Survivable", seed: 1, attacks: { MissingVcpu: 1 } }), { local: true })))

  it.effect("stop, and begin anew", () =>
    Effect.gen(function*() {
      const hostile = yield* HostilePage.HostilePage
      yield* runGuests
      const first = yield* hostile.faults
      yield* hostile.stop
      yield* runGuests
      assert.strictEqual(yield* hostile.count, first.length)
      yield* hostile.restart
      assert.strictEqual(yield* hostile.count, 0)
      yield* runGuests
      assert.deepStrictEqual(yield* hostile.faults, first)
      const all = yield* HostilePage.Adversaries
      assert.deepStrictEqual(all.map(({ name }) => name), ["HostilePage"])
      assert.strictEqual((yield* all[0]!.report).split("\n").length, first.length)
    }).pipe(Effect.provide(over({ mode: "Survivable", seed: 9 }), { local: true })))

  it.effect("are refused as typed errors when their options are none", () =>
    Effect.gen(function*() {
      for (
        const options of [
          { mode: "Survivable", seed: 0.5 },
          { mode: "Survivable", seed: 2 ** 32 },
          { mode: "Survivable", seed: 1, rate: 1.5 },
          { mode: "Survivable", seed: 1, rate: Number.NaN },
          { mode: "Survivable", seed: 1, attacks: {} },
          { mode: "Survivable", seed: 1, attacks: { KernelHandled: 0 } },
          { mode: "Survivable", seed: 1, attacks: { StateForeign: 1 } },
          { mode: "Hostile", seed: 1, attacks: { Everything: 1 } },
          { mode: "Quiet", seed: 1 },
          { mode: "Hostile", seed: 1, vms: [0.5] },
          { seed: 1 }
        ]
      ) {
        const error = yield* Effect.flip(
          Effect.provide(Effect.void, over(options as HostilePage.Options), { local: true })
        )
        assert.instanceOf(error, HostilePage.AdversaryError, JSON.stringify(options))
        assert.include(error.message, "HostilePage")
      }
    }))
})
