/**
 * A peer that changes the I/O request page between any two reads of the Service VM: a layer over any hypervisor, for
 * tests of whatever serves requests. Only pages that were given to the hypervisor as a VM's request page are attacked,
 * and only their words change: guest memory and hypercall structures stay as they are.
 *
 * A `Survivable` peer touches what no correct service looks at again, or at all: every request is still answered, and
 * the guest sees no difference. A `Hostile` one changes everything, states too. Then its VM's vCPUs may get garbage or
 * wait for ever; but the service must not crash, hang, obey, leak, or touch another VM.
 *
 * **Example** (A guest that does not notice)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Result from "effect/Result"
 * import * as MmioScratch from "upcall/layers/devices/MmioScratch"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 * import * as GuestRun from "upcall/testing/GuestRun"
 * import * as HostilePage from "upcall/testing/HostilePage"
 *
 * const guest = Result.getOrThrow(GuestProgram.assemble([
 *   { _tag: "Store", address: 0xe0000010, size: 4, value: 0x11223344 },
 *   { _tag: "Load", address: 0xe0000012, size: 2 },
 *   { _tag: "Keep" }
 * ]))
 * const program = Effect.gen(function*() {
 *   const run = yield* GuestRun.run(guest, MmioScratch.make())
 *   const hostile = yield* HostilePage.HostilePage
 *   console.log(run.results.toString(), (yield* hostile.count) > 0)
 *   // => 34,17,34,17 true
 *   console.log((yield* hostile.report).split("\n")[0])
 *   // => VM 1, before read 1: MissingVcpu, slot 12 state (offset 136) 0x3 -> 0x80000000
 * })
 * const machines = VirtualMachine.layer.pipe(
 *   Layer.provideMerge(HostilePage.layer({ mode: "Survivable", seed: 1 })),
 *   Layer.provideMerge(Simulated.layer)
 * )
 * await Effect.runPromise(Effect.provide(program, machines))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { SLOT_STATE_OFFSET, SlotStateCode } from "../domain/abi/IoRequestSlot.ts"
import { hex } from "../domain/Address.ts"
import { U64 } from "../domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../domain/Limits.ts"
import { HypercallGate } from "../services/HypercallGate.ts"
import { ServiceMemory, type ServicePage } from "../services/ServiceMemory.ts"
import { type Adversary, type AdversaryError, checkOptions, enlisted, FaultLog } from "./adversaries/Adversary.ts"
import { type Chance, Chances, Rate, Seed, type Weighted, weighted, weightsOf } from "./adversaries/Chance.ts"
import * as PageAttacks from "./adversaries/pageAttacks.ts"
import { type WatchedPage, watchPages } from "./adversaries/watchPages.ts"

export { Adversaries, AdversaryError, AdversaryErrorReason } from "./adversaries/Adversary.ts"
export type { Adversary } from "./adversaries/Adversary.ts"

/**
 * What a peer may do to a correct service without its guest seeing a difference.
 *
 * - `FetchedRequest`: a field of a request (type, completion_polling, direction, address, size, value) changes after it
 *   was read, before it is completed: what is read twice is read differently.
 * - `MissingVcpu`: requests and states in slots of vCPUs that the VM has not.
 * - `KernelHandled`: kernel_handled, which belongs to the Linux driver alone.
 * - `UnownedBytes`: bytes of a slot that nobody owns.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SurvivableAttack = Schema.Literals(PageAttacks.SURVIVABLE_ATTACKS)

/**
 * @category models
 * @since 0.1.0
 */
export type SurvivableAttack = typeof SurvivableAttack.Type

/**
 * All that a peer can do to a page.
 *
 * - `StateBackwards`: a slot goes back to the state before the one that it shows.
 * - `StateForged`: a slot shows any of the four states; `StateForeign`: a word that is no state.
 * - `Size`: 0, 3, 5, 16, 2^63 and more bytes; `Address`: the end of a space, past it, and 2^64 - 1.
 * - `Value`, `Direction`, `Type`, `Polling`, `PciFunction` (bus, device, function, register): other words, read or not.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Attack = Schema.Literals([...PageAttacks.SURVIVABLE_ATTACKS, ...PageAttacks.HOSTILE_ATTACKS])

/**
 * @category models
 * @since 0.1.0
 */
export type Attack = typeof Attack.Type

const common = {
  seed: Seed,
  rate: Schema.optionalKey(Rate),
  vms: Schema.optionalKey(Schema.Array(Schema.Int))
}

/**
 * - `mode`: `Survivable` or `Hostile`, see above; laws choose by it.
 * - `seed`: the same attacks for the same seed and the same reads, VM by VM; -2^31 to 2^32 - 1.
 * - `rate`: how many of the reads an attack comes before, 0 to 1; default 1.
 * - `attacks`: weights of the attacks to choose from, those that are not named being never made; default all of the
 *   mode, each as often.
 * - `vms`: ids of the VMs whose pages are attacked; default all.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Options = Schema.Union([
  Schema.Struct({
    mode: Schema.Literal("Survivable"),
    ...common,
    attacks: Schema.optionalKey(weightsOf(PageAttacks.SURVIVABLE_ATTACKS))
  }),
  Schema.Struct({
    mode: Schema.Literal("Hostile"),
    ...common,
    attacks: Schema.optionalKey(weightsOf([...PageAttacks.SURVIVABLE_ATTACKS, ...PageAttacks.HOSTILE_ATTACKS]))
  })
])

/**
 * @category models
 * @since 0.1.0
 */
export type Options = typeof Options.Type

/**
 * One field that changed. `read` counts the reads of this page, from 1: the change came before that one. `offset` is in
 * bytes, from the begin of the slot.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PageAttack = Schema.TaggedStruct("PageAttack", {
  vmId: Schema.Int,
  read: Schema.Natural,
  slot: Schema.Natural,
  attack: Attack,
  field: Schema.String,
  offset: Schema.Natural,
  from: U64,
  to: U64
})

/**
 * @category models
 * @since 0.1.0
 */
export type PageAttack = typeof PageAttack.Type

/**
 * An attack as a line: `VM 1, before read 3: FetchedRequest, slot 0 size (offset 80) 0x4 -> 0x0`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ attack, field, from, offset, read, slot, to, vmId }: PageAttack): string =>
  `VM ${vmId}, before read ${read}: ${attack}, slot ${slot} ${field} (offset ${offset}) ${hex(from)} -> ${hex(to)}`

/**
 * The peer, to ask what it did.
 *
 * @category services
 * @since 0.1.0
 */
export class HostilePage extends Context.Service<HostilePage, Adversary<PageAttack>>()("upcall/testing/HostilePage") {}

const defaultWeights = ({ mode }: Options): Readonly<Partial<Record<Attack, number>>> =>
  Object.fromEntries(
    (mode === "Hostile" ? Attack.literals : SurvivableAttack.literals).map((attack) => [attack, 1])
  )

/** One page and the peer behind it. */
class Peer {
  private readonly page: ServicePage
  private readonly watched: WatchedPage
  private readonly plan: Plan

  constructor(page: ServicePage, watched: WatchedPage, plan: Plan) {
    this.page = page
    this.watched = watched
    this.plan = plan
  }

  /** Comes before each read of the Service VM. */
  attack(readSlot: number): void {
    const { attacks, chances, log, rate, vms } = this.plan
    const vm = this.watched.vm
    if (vm === undefined || !log.isActive || !(vms?.includes(vm.id) ?? true)) return
    this.watched.reads++
    const chance = chances.of(vm.id)
    if (!chance.happens(rate)) return
    const possible = attacks.filter(({ value }) => this.slots(value, vm.vcpus).length > 0)
    if (possible.length === 0) return
    const attack = chance.pickWeighted(possible)
    const slots = this.slots(attack, vm.vcpus)
    // The slot that is about to be read is where it hurts.
    const slot = slots.includes(readSlot) && chance.happens(0.5) ? readSlot : chance.pick(slots)
    const field = chance.pick(PageAttacks.rules[attack].fields)
    const from = this.load(slot, field)
    const to = this.other(attack, field, from, chance)
    if (to === from) return
    this.store(slot, field, to)
    log.add({
      _tag: "PageAttack",
      vmId: vm.id,
      read: this.watched.reads,
      slot,
      attack,
      field: field.name,
      offset: field.offset,
      from,
      to
    })
  }

  private slots(attack: Attack, vcpus: number): ReadonlyArray<number> {
    switch (PageAttacks.rules[attack].slots) {
      case "Fetched":
        return ALL_SLOTS.filter((slot) => this.watched.isFetched[slot])
      case "Missing":
        return ALL_SLOTS.slice(vcpus)
      case "Served":
        return ALL_SLOTS.slice(0, vcpus)
      case "All":
        return ALL_SLOTS
    }
  }

  /** What a field becomes: another value than it has, if there is one. */
  private other(attack: Attack, { bytes }: PageAttacks.PageField, from: bigint, chance: Chance): bigint {
    const { values } = PageAttacks.rules[attack]
    if (values === "Backwards") return BigInt(PageAttacks.stateBefore(Number(from)))
    if (values === "Random") return from ^ BigInt.asUintN(bytes * 8, 1n << BigInt(chance.below(bytes * 8)))
    const others = values.map((value) => BigInt.asUintN(bytes * 8, value)).filter((value) => value !== from)
    return others.length === 0 ? from : chance.pick(others)
  }

  private load(slot: number, { bytes, offset }: PageAttacks.PageField): bigint {
    const at = slot * SLOT_BYTES + offset
    const low = BigInt(this.page.load32(at) >>> 0)
    return bytes === 4 ? low : BigInt(this.page.load32(at + 4) >>> 0) << 32n | low
  }

  private store(slot: number, { bytes, offset }: PageAttacks.PageField, value: bigint): void {
    const at = slot * SLOT_BYTES + offset
    this.page.store32(at, Number(BigInt.asIntN(32, value)))
    if (bytes === 8) this.page.store32(at + 4, Number(BigInt.asIntN(32, value >> 32n)))
  }
}

const ALL_SLOTS: ReadonlyArray<number> = Array.from({ length: MAX_VCPUS }, (_, slot) => slot)

interface Plan {
  readonly attacks: ReadonlyArray<Weighted<Attack>>
  readonly chances: Chances
  readonly log: FaultLog<PageAttack>
  readonly rate: number
  readonly vms: ReadonlyArray<number> | undefined
}

const hostile = (page: ServicePage, watched: WatchedPage, plan: Plan): ServicePage => {
  const peer = new Peer(page, watched, plan)
  const slotOf = (offset: number) => Math.floor(offset / SLOT_BYTES)
  return {
    load32: (offset) => {
      peer.attack(slotOf(offset))
      return page.load32(offset)
    },
    store32: (offset, value) => {
      const slot = slotOf(offset)
      if (offset % SLOT_BYTES === SLOT_STATE_OFFSET && value === SlotStateCode.Complete) watched.isFetched[slot] = false
      page.store32(offset, value)
    },
    fetchRequest: (offset, words) => {
      peer.attack(slotOf(offset))
      page.fetchRequest(offset, words)
      watched.isFetched[slotOf(offset)] = true
    },
    storeRequest: (offset, words) => page.storeRequest(offset, words)
  }
}

/**
 * A hostile peer over the hypervisor that this layer is given. Each call is a peer of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<HostilePage | HypercallGate | ServiceMemory, AdversaryError, HypercallGate | ServiceMemory> =>
  Layer.effectContext(Effect.gen(function*() {
    const { attacks, rate = 1, seed, vms } = yield* checkOptions("HostilePage", Options, options)
    const chances = new Chances(seed)
    const log = new FaultLog<PageAttack>({ name: "HostilePage", format, onRestart: () => chances.restart() })
    const plan: Plan = { attacks: weighted(attacks ?? defaultWeights(options)), chances, log, rate, vms }
    const { gate, memory } = watchPages(
      yield* HypercallGate,
      yield* ServiceMemory,
      (page, watched) => hostile(page, watched, plan)
    )
    return (yield* enlisted(log.adversary)).pipe(
      Context.add(HypercallGate, gate),
      Context.add(ServiceMemory, memory),
      Context.add(HostilePage, log.adversary)
    )
  }))
