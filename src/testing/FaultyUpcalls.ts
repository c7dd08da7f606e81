/**
 * A line of upcalls that is late, says things twice, or says them wrong: a layer over any hypervisor, for tests of
 * whatever looks at the page.
 *
 * A `Lossless` line loses nothing: every request is still answered, only later or after more looks. A `Lossy` one may
 * never say that a request is there, which is bearable only with `VirtualMachine.layerWith({ rescan })`: a request then
 * waits for one interval at most. Arming is not disturbed: whoever registers is called at once to scan, as below.
 *
 * Nothing here waits for a clock. What is late comes on the next turns of the Scheduler that the layer is built with.
 *
 * **Example** (A guest whose every upcall is disturbed)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Result from "effect/Result"
 * import * as MmioScratch from "upcall/layers/devices/MmioScratch"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as FaultyUpcalls from "upcall/testing/FaultyUpcalls"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 * import * as GuestRun from "upcall/testing/GuestRun"
 *
 * const guest = Result.getOrThrow(GuestProgram.assemble([
 *   { _tag: "Store", address: 0xe0000010, size: 4, value: 0x11223344 },
 *   { _tag: "Load", address: 0xe0000012, size: 2 },
 *   { _tag: "Keep" }
 * ]))
 * const program = Effect.gen(function*() {
 *   const run = yield* GuestRun.run(guest, MmioScratch.make())
 *   const line = yield* FaultyUpcalls.FaultyUpcalls
 *   console.log(run.results.toString())
 *   // => 34,17,34,17
 *   console.log(yield* line.report)
 *   // => upcall 1, VM 1 vCPU 0: Late, 6 turns
 *   // => upcall 2, VM 1 vCPU 0: Doubled, 1 turn
 * })
 * const machines = VirtualMachine.layer.pipe(
 *   Layer.provideMerge(FaultyUpcalls.layer({ mode: "Lossless", seed: 1, rate: 1 })),
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
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import { MAX_VCPUS } from "../domain/Limits.ts"
import * as Upcalls from "../services/Upcalls.ts"
import { type Adversary, type AdversaryError, checkOptions, enlisted, FaultLog } from "./adversaries/Adversary.ts"
import { type Chance, Chances, Rate, Seed, type Weighted, weighted, weightsOf } from "./adversaries/Chance.ts"
import { afterTurns } from "./adversaries/hostTurns.ts"

export { Adversaries, AdversaryError, AdversaryErrorReason } from "./adversaries/Adversary.ts"
export type { Adversary } from "./adversaries/Adversary.ts"

const LOSSLESS = ["Late", "Merged", "Doubled", "Spurious"] as const
const LOSSY = ["Held", "WrongHint", "Lost"] as const

const common = {
  seed: Seed,
  rate: Schema.optionalKey(Rate),
  vms: Schema.optionalKey(Schema.Array(Schema.Int)),
  maxTurns: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 })))
}

/**
 * - `mode`: `Lossless` or `Lossy`, see above; laws choose by it.
 * - `seed`: the same faults for the same seed and the same upcalls, VM by VM; -2^31 to 2^32 - 1.
 * - `rate`: how many of the upcalls are disturbed, 0 to 1; default 0.5.
 * - `faults`: weights of the faults to choose from, those that are not named never happening; default all of the mode,
 *   each as often.
 * - `vms`: ids of the VMs whose upcalls are disturbed; default all, and those without a hint.
 * - `maxTurns`: the most turns that something is late, and the most upcalls that one is held for, 1 to 1000; default 8.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Options = Schema.Union([
  Schema.Struct({
    mode: Schema.Literal("Lossless"),
    ...common,
    faults: Schema.optionalKey(weightsOf(LOSSLESS))
  }),
  Schema.Struct({
    mode: Schema.Literal("Lossy"),
    ...common,
    faults: Schema.optionalKey(weightsOf([...LOSSLESS, ...LOSSY]))
  })
])

/**
 * @category models
 * @since 0.1.0
 */
export type Options = typeof Options.Type

// A spurious hint need not be a vCPU at all, nor an integer.
const Hint = Schema.UndefinedOr(Schema.Struct({ vmId: Schema.Number, vcpu: Schema.Number }))

const upcall = {
  /** The how manieth upcall from below, from 1. */
  nth: Schema.Natural,
  /** What it said. */
  hint: Hint
}

/**
 * What happened to the `nth` upcall of the hypervisor, counted from 1, which said `hint`.
 *
 * - `Late`: it came so many turns of the host later.
 * - `Merged`: it came so many turns later, without its hint, as one with those that came meanwhile.
 * - `Doubled`: it came twice, the second time so many turns later (0: at once).
 * - `Spurious`: beside it came one that says `said`, so many turns later (0: before it).
 * - `Held`: it came just before the upcall that is so many after it, however long that takes.
 * - `WrongHint`: it came at once, saying `said`.
 * - `Lost`: it never came.
 *
 * @category schemas
 * @since 0.1.0
 */
export const UpcallFault = Schema.TaggedUnion({
  Late: { ...upcall, turns: Schema.Natural },
  Merged: { ...upcall, turns: Schema.Natural },
  Doubled: { ...upcall, turns: Schema.Natural },
  Spurious: { ...upcall, said: Hint, turns: Schema.Natural },
  Held: { ...upcall, upcalls: Schema.Natural },
  WrongHint: { ...upcall, said: Hint },
  Lost: upcall
})

/**
 * @category models
 * @since 0.1.0
 */
export type UpcallFault = typeof UpcallFault.Type

const show = (hint: Upcalls.UpcallHint | undefined): string =>
  hint === undefined ? "(no hint)" : `VM ${hint.vmId} vCPU ${hint.vcpu}`

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`

/**
 * A fault as a line: `upcall 3, VM 1 vCPU 0: Late, 5 turns`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (fault: UpcallFault): string => {
  const what = `upcall ${fault.nth}, ${show(fault.hint)}: ${fault._tag}`
  const said = "said" in fault ? `, said ${show(fault.said)}` : ""
  const turns = "turns" in fault ? `, ${counted(fault.turns, "turn")}` : ""
  const upcalls = "upcalls" in fault ? `, ${counted(fault.upcalls, "upcall")}` : ""
  return `${what}${said}${turns}${upcalls}`
}

/**
 * The line, to ask what it did.
 *
 * @category services
 * @since 0.1.0
 */
export class FaultyUpcalls
  extends Context.Service<FaultyUpcalls, Adversary<UpcallFault>>()("upcall/testing/FaultyUpcalls")
{}

const defaultWeights = ({ mode }: Options): Readonly<Partial<Record<UpcallFault["_tag"], number>>> =>
  Object.fromEntries((mode === "Lossy" ? [...LOSSLESS, ...LOSSY] : LOSSLESS).map((fault) => [fault, 1]))

// Not a vCPU: below the first, above the last, cut to 16 or 32 bits the first, and no integer.
const NO_VCPUS = [-1, MAX_VCPUS, 0xffff, 0x1_0000, 2 ** 31, 2 ** 32, -(2 ** 31), 0.5, Number.NaN, Infinity]

interface Held {
  left: number
  readonly hint: Upcalls.UpcallHint | undefined
}

/** Between the hypervisor's line, which calls `hear`, and the line that the Service VM is on, which `tell` calls. */
class Line {
  readonly log: FaultLog<UpcallFault>
  /** Registering below calls back at once, before anybody is above. */
  isArmed = false
  private readonly tell: Upcalls.UpcallHandler
  private readonly host: Scheduler.SchedulerDispatcher
  private readonly options: Options
  private readonly faults: ReadonlyArray<Weighted<UpcallFault["_tag"]>>
  private readonly chances: Chances
  private heard = 0
  private held: Array<Held> = []
  private isMerging = false

  constructor(tell: Upcalls.UpcallHandler, host: Scheduler.SchedulerDispatcher, options: Options) {
    this.tell = tell
    this.host = host
    this.options = options
    this.faults = weighted(options.faults ?? defaultWeights(options))
    this.chances = new Chances(options.seed)
    this.log = new FaultLog({
      name: "FaultyUpcalls",
      format,
      onStop: () => this.letGo(),
      onRestart: () => {
        this.heard = 0
        this.chances.restart()
      }
    })
  }

  readonly hear: Upcalls.UpcallHandler = (hint) => {
    if (!this.isArmed) return
    this.heard++
    this.tellHeld()
    const { rate = 0.5, vms } = this.options
    const isSpared = vms !== undefined && (hint === undefined || !vms.includes(hint.vmId))
    if (isSpared || !this.log.isActive) return this.tell(hint)
    if (this.isMerging) return
    const chance = this.chances.of(hint?.vmId)
    if (!chance.happens(rate)) return this.tell(hint)
    this.disturb(hint, chance.pickWeighted(this.faults), chance)
  }

  private disturb(hint: Upcalls.UpcallHint | undefined, fault: UpcallFault["_tag"], chance: Chance): void {
    const upcalled = { nth: this.heard, hint }
    const { maxTurns = 8 } = this.options
    switch (fault) {
      case "Late": {
        const turns = 1 + chance.below(maxTurns)
        this.log.add({ _tag: "Late", ...upcalled, turns })
        return this.tellAfter(turns, hint)
      }
      case "Merged": {
        const turns = 1 + chance.below(maxTurns)
        this.log.add({ _tag: "Merged", ...upcalled, turns })
        this.isMerging = true
        return afterTurns(this.host, turns, () => {
          this.isMerging = false
          this.tellAfter(0, undefined)
        })
      }
      case "Doubled": {
        const turns = chance.below(maxTurns + 1)
        this.log.add({ _tag: "Doubled", ...upcalled, turns })
        this.tell(hint)
        return this.tellAfter(turns, hint)
      }
      case "Spurious": {
        const said = wrongHint(hint, chance)
        const turns = chance.below(maxTurns + 1)
        this.log.add({ _tag: "Spurious", ...upcalled, said, turns })
        this.tellAfter(turns, said)
        return this.tell(hint)
      }
      case "Held": {
        const upcalls = 1 + chance.below(maxTurns)
        this.log.add({ _tag: "Held", ...upcalled, upcalls })
        this.held.push({ left: upcalls, hint })
        return
      }
      case "WrongHint": {
        const said = wrongHint(hint, chance)
        this.log.add({ _tag: "WrongHint", ...upcalled, said })
        return this.tell(said)
      }
      case "Lost":
        this.log.add({ _tag: "Lost", ...upcalled })
    }
  }

  private tellAfter(turns: number, hint: Upcalls.UpcallHint | undefined): void {
    afterTurns(this.host, turns, () => this.tell(hint))
  }

  private tellHeld(): void {
    if (this.held.length === 0) return
    for (const held of this.held) held.left--
    const due = this.held.filter(({ left }) => left <= 0)
    this.held = this.held.filter(({ left }) => left > 0)
    for (const { hint } of due) this.tell(hint)
  }

  private letGo(): void {
    const held = this.held
    this.held = []
    for (const { hint } of held) this.tell(hint)
  }
}

/** Another VM, another vCPU, one that cannot be, or none. */
const wrongHint = (hint: Upcalls.UpcallHint | undefined, chance: Chance): Upcalls.UpcallHint | undefined => {
  const { vcpu, vmId } = hint ?? { vmId: 1, vcpu: 0 }
  switch (chance.below(4)) {
    case 0:
      return { vmId: chance.below(0x1_0000), vcpu }
    case 1:
      return { vmId, vcpu: (vcpu + 1 + chance.below(MAX_VCPUS - 1)) % MAX_VCPUS }
    case 2:
      return { vmId, vcpu: chance.pick(NO_VCPUS) }
    default:
      return hint === undefined ? { vmId, vcpu } : undefined
  }
}

/**
 * A faulty line of upcalls over the hypervisor that this layer is given. Each call is a line of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<FaultyUpcalls | Upcalls.Upcalls, AdversaryError, Upcalls.Upcalls> =>
  Layer.effectContext(Effect.gen(function*() {
    const checked = yield* checkOptions("FaultyUpcalls", Options, options)
    const below = yield* Upcalls.Upcalls
    const host = (yield* Scheduler.Scheduler).makeDispatcher()
    // Whoever registers above arms this line, which calls back at once: that first scan passes no fault.
    const above = Upcalls.make()
    const line = new Line(above.raise, host, checked)
    yield* below.register(line.hear)
    line.isArmed = true
    return (yield* enlisted(line.log.adversary)).pipe(
      Context.add(Upcalls.Upcalls, above.service),
      Context.add(FaultyUpcalls, line.log.adversary)
    )
  }))
