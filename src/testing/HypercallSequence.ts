/**
 * Hypercall sequences as data, legal calls and illegal ones alike: generated, shrunk, made at any hypercall gate as ids,
 * words and bytes, and compared with ACRN's rules, which stand here as a pure function. Law 17 of `Laws` is made of it.
 *
 * **Example** (What ACRN says to a VM that is destroyed while it runs)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Simulated from "upcall/layers/Simulated"
 * import * as HypercallSequence from "upcall/testing/HypercallSequence"
 *
 * const calls: HypercallSequence.HypercallSequence = [
 *   { _tag: "Create", affinity: 1n, structure: "Memory" },
 *   { _tag: "SetPage", vm: 0, page: "Own", structure: "Memory" },
 *   { _tag: "Start", vm: 0 },
 *   { _tag: "Destroy", vm: 0 }
 * ]
 * const program = Effect.gen(function*() {
 *   const abilities = yield* HypercallSequence.learn
 *   const [expected] = HypercallSequence.rules(calls, abilities).at(-1)!
 *   return [expected.results, yield* HypercallSequence.firstDifference(calls, abilities)]
 * })
 * console.log(await Effect.runPromise(Effect.provide(program, Simulated.layer)))
 * // => [ [ -1 ], undefined ]
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { MemoryAccess, MemoryRegionOpCode, MemoryType } from "../domain/abi/MemoryRegionBatch.ts"
import { hex } from "../domain/Address.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../domain/Limits.ts"
import { HypercallGate } from "../services/HypercallGate.ts"
import { IrqLines, Resume } from "../services/Hypervisor.ts"
import type { ServiceMemory, ServiceMemoryError } from "../services/ServiceMemory.ts"
import { all, array, bits, elementOf, type Generator, integer, map, oneOf } from "./Generator.ts"
import * as AcrnRules from "./sequence/AcrnRules.ts"
import * as Calls from "./sequence/Call.ts"
import * as Performer from "./sequence/Performer.ts"

/**
 * One call. `vm` names a VM by the order of creation: 0 is the first that the sequence creates, up to 3. A VM that was
 * not created, or is destroyed, is no VM for the gate either. `structure` says where the call's structure lies: in
 * memory, where there is none, or over the end of the 64-bit address space.
 *
 * - `Create`: `affinity` has a bit per vCPU; none stands for the vCPUs that the hypervisor is configured for.
 * - `Resume`: not a hypercall but the capability of this name; -ENOTTY where there is none.
 * - `SetRegisters`: a vCPU's registers, with this RAX, and a CR0 or CR4 that no guest can have or legal ones.
 * - `SetPage`: the VM's own page, an address that is no memory, or one inside of its own page.
 * - `Notify`: as hypercall, or by the gate's synchronous form.
 * - `SetRegions`: a batch of operations; `size` is in bytes, `guest` a guest physical address, `Own` memory of halts.
 * - `Unknown`: a number that is no hypercall's.
 * - `WriteSlot`: not a hypercall either: the Service VM writes a state to a slot of the VM's page.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Call = Calls.Call

/**
 * @category models
 * @since 0.1.0
 */
export type Call = Calls.Call

/**
 * @category schemas
 * @since 0.1.0
 */
export const HypercallSequence = Schema.Array(Call)

/**
 * @category models
 * @since 0.1.0
 */
export type HypercallSequence = ReadonlyArray<Call>

/**
 * What the rules depend on beside the calls: the profile; `resumes`, whether paused VMs can be run on; `irqLines` of a
 * VM's interrupt controllers (`undefined`: not known); `maxVms`, how many VMs there can be at once, as far as sequences
 * get; and `configuredVcpus`, the vCPUs of a VM that is created with an empty affinity.
 *
 * @category models
 * @since 0.1.0
 */
export type Abilities = AcrnRules.Abilities

/**
 * The part of the abilities that a hypervisor tells by itself.
 *
 * @category models
 * @since 0.1.0
 */
export type Declared = Omit<Abilities, "maxVms" | "configuredVcpus">

/**
 * A VM as the rules see it: its vCPUs, its state, whether it ran in this life, whether it has a page, and RAX of each
 * vCPU whose registers were set.
 *
 * @category models
 * @since 0.1.0
 */
export type VmModel = AcrnRules.VmModel

/**
 * What there is after a call: VMs by the order of their creation (`undefined`: destroyed), and the states of the 16 slots
 * of each named VM's page.
 *
 * @category models
 * @since 0.1.0
 */
export type Model = AcrnRules.Model

/**
 * The results of which a call gives one (versions of ACRN differ in a few refusals), and the vCPUs of the VM that it
 * makes, if it makes one.
 *
 * @category models
 * @since 0.1.0
 */
export type Expected = AcrnRules.Expected

/**
 * The most calls of a generated sequence.
 *
 * @category limits
 * @since 0.1.0
 */
export const MAX_CALLS = 63

/**
 * What ACRN's rules say to each call of a sequence: the result, and what there is after it.
 *
 * @category rules
 * @since 0.1.0
 */
export const rules = (
  calls: HypercallSequence,
  abilities: Abilities
): ReadonlyArray<readonly [expected: Expected, after: Model]> => {
  let model = AcrnRules.initial
  return calls.map((call) => {
    const answer = AcrnRules.step(model, call, abilities)
    model = answer[1]
    return answer
  })
}

/**
 * What a hypervisor's services declare.
 *
 * @category abilities
 * @since 0.1.0
 */
export const declared = (context: Context.Context<HypercallGate>): Declared => ({
  profile: Context.get(context, HypercallGate).profile,
  resumes: Option.isSome(Context.getOption(context, Resume)),
  irqLines: Option.getOrUndefined(Option.map(Context.getOption(context, IrqLines), ({ count }) => count))
})

/**
 * Learns what a hypervisor can do: it creates VMs until there is no room, or as many as a sequence can, and destroys
 * them. No other VM may come or go meanwhile.
 *
 * @category abilities
 * @since 0.1.0
 */
export const learn: Effect.Effect<Abilities, ServiceMemoryError, HypercallGate | ServiceMemory> = Effect.scoped(
  Effect.gen(function*() {
    const known = declared(yield* Effect.context<HypercallGate>())
    const { perform } = yield* Performer.make
    const configuredVcpus = (yield* perform({ _tag: "Create", affinity: 0n, structure: "Memory" })).vcpus ?? 0
    let maxVms = configuredVcpus === 0 ? 0 : 1
    while (maxVms < MAX_CALLS) {
      const { vcpus } = yield* perform({ _tag: "Create", affinity: 1n, structure: "Memory" })
      if (vcpus === undefined) break
      maxVms++
    }
    return { ...known, configuredVcpus, maxVms }
  })
)

/**
 * Makes the calls, and looks after each at its result, at every named VM's slots, and at the registers of vCPUs whose
 * registers were set (on layers with `VcpuState`). The answer says where they first differ from the rules; `undefined`:
 * nowhere. Every VM that the sequence made is destroyed at its end.
 *
 * @category checking
 * @since 0.1.0
 */
export const firstDifference = (
  calls: HypercallSequence,
  abilities: Abilities
): Effect.Effect<string | undefined, ServiceMemoryError, HypercallGate | ServiceMemory> =>
  Effect.scoped(Effect.gen(function*() {
    const performer = yield* Performer.make
    const answers = rules(calls, abilities)
    // A page that no call named is none of the hypervisor's business.
    const named = new Set<number>()
    for (const [index, call] of calls.entries()) {
      const [expected, after] = answers[index]!
      const outcome = yield* performer.perform(call)
      if (call._tag === "SetPage" || call._tag === "WriteSlot") named.add(call.vm)
      const problem = wrongOutcome(outcome, expected) ?? wrongSlots(performer, named, after) ??
        (yield* wrongRegisters(performer, after))
      if (problem !== undefined) return `call ${index + 1}, ${formatCall(call)}: ${problem}`
    }
    const left = yield* performer.finish
    return left.length === 0 ? undefined : `VM ids ${left.join(", ")} could not be paused and destroyed at the end`
  }))

const wrongOutcome = (outcome: Performer.Outcome, { results, vcpus }: Expected): string | undefined => {
  if (outcome.problem !== undefined) return outcome.problem
  if (!results.includes(outcome.result)) return `its result is ${outcome.result}, not ${results.join(" or ")}`
  if (outcome.vcpus === vcpus) return undefined
  const vmOf = (count: number | undefined) => count === undefined ? "no VM" : `a VM of ${count} vCPUs`
  return `it made ${vmOf(outcome.vcpus)}, not ${vmOf(vcpus)}`
}

const wrongSlots = (
  performer: Performer.Performer,
  named: Iterable<number>,
  { slots }: Model
): string | undefined => {
  for (const vm of named) {
    const seen = performer.slots(vm)
    const states = slots[vm]!
    const slot = states.findIndex((state, index) => seen[index] !== state)
    if (slot >= 0) return `slot ${slot} of VM ${vm}'s page then has state ${seen[slot]}, not ${states[slot]}`
  }
  return undefined
}

const wrongRegisters = (performer: Performer.Performer, { vms }: Model): Effect.Effect<string | undefined> =>
  Effect.gen(function*() {
    for (let vm = 0; vm < Calls.NAMED_VMS; vm++) {
      const self = vms[vm]
      const isHidden = self === undefined || self.state === "Running"
      // A stopped vCPU that was never given registers may have any, or none.
      const looked = isHidden ? [[0, undefined] as const] : self.registers
      for (const [vcpu, rax] of looked) {
        const seen = yield* performer.registers(vm, vcpu)
        if (Option.isNone(seen) || seen.value === rax) continue
        const show = (word: number | undefined) => word === undefined ? "unreadable" : hex(word)
        return `RAX of vCPU ${vcpu} of VM ${vm} then is ${show(seen.value)}, and must be ${show(rax)}`
      }
    }
    return undefined
  })

const structure = elementOf(["Memory", "Memory", "Memory", "Memory", "Nowhere", "Wrapping"] as const)
// Mostly the first VM, so that sequences get far in its life.
const vm = elementOf([0, 0, 0, 0, 1, 1, 2, 3])
const affinity = elementOf([1n, 3n, 0n, 0b1010_0000n, 0xffffn, 0x1_ffffn, 1n << 63n, (1n << 64n) - 1n])

const regionOperation = (addressBits: number): Generator<Calls.RegionOperation> => {
  const end = 1n << BigInt(addressBits)
  const page = BigInt(PAGE_BYTES)
  return all({
    type: elementOf([MemoryRegionOpCode.Add, MemoryRegionOpCode.Add, MemoryRegionOpCode.Delete, 1, 0xffff_ffff]),
    attributes: map(integer(0, MemoryAccess.All), (rights) => MemoryType.WriteBack | rights),
    guest: elementOf([
      0x10_0000n,
      0x10_1000n,
      0x10_0800n,
      0n,
      0x1000n,
      end - page,
      end - 1n,
      end,
      (1n << 64n) - page,
      (1n << 64n) - 1n
    ]),
    service: elementOf(["Own", "Own", "Own", "Nowhere"] as const),
    size: elementOf([PAGE_BYTES, 2 * PAGE_BYTES, 0, PAGE_BYTES / 2] as const)
  }) as Generator<Calls.RegionOperation>
}

const anyCall = ({ irqLines, profile, resumes }: Declared): Generator<Call> => {
  const plain = (tag: "Destroy" | "Start" | "Pause" | "Reset" | "Resume") =>
    map(vm, (name): Call => ({ _tag: tag, vm: name }))
  const start = plain("Start")
  const pause = plain("Pause")
  const setRegisters = map(
    all({
      vm,
      vcpu: elementOf([0, 0, 0, 0, 1, 2, 15, 16, 0xffff]),
      rax: map(bits(32), Number),
      control: elementOf(["Legal", "Legal", "Legal", "BadCr0", "BadCr4"] as const),
      structure
    }),
    (fields): Call => ({ _tag: "SetRegisters", ...fields })
  )
  const setPage = map(
    all({ vm, page: elementOf(["Own", "Own", "Own", "Nowhere", "Misaligned"] as const), structure }),
    (fields): Call => ({ _tag: "SetPage", ...fields })
  )
  return oneOf<Call>(
    map(all({ affinity, structure }), (fields): Call => ({ _tag: "Create", ...fields })),
    start,
    start,
    pause,
    pause,
    plain("Reset"),
    plain("Destroy"),
    setPage,
    setPage,
    setRegisters,
    setRegisters,
    map(
      all({
        vm,
        vcpu: elementOf([0, 1, 2, 15, 16, 0xffff, 0x1_0000, 0x1_0001, 0xffff_0000]),
        form: elementOf(["Hypercall", "Synchronous"] as const)
      }),
      (fields): Call => ({ _tag: "Notify", ...fields })
    ),
    map(
      all({ vm, operations: array(regionOperation(profile.addressBits), { maxLength: 3 }), structure }),
      (fields): Call => ({ _tag: "SetRegions", ...fields })
    ),
    map(
      all({ vm, slot: elementOf([0, 1, 2, MAX_VCPUS - 1]), state: elementOf([0, 1, 2, 3, 4, 0xffff_ffff]) }),
      (fields): Call => ({ _tag: "WriteSlot", ...fields })
    ),
    map(elementOf([0x100, 0x1234, 0xff_ffff]), (number): Call => ({ _tag: "Unknown", number })),
    ...resumes ? [plain("Resume")] : [],
    ...irqLines === undefined ? [] : [map(
      all({ vm, line: elementOf([0, irqLines - 1, irqLines, 0xffff_ffff]), operation: integer(0, 5) }),
      (fields): Call => ({ _tag: "SetIrqLine", ...fields })
    )]
  )
}

const READY: HypercallSequence = [
  { _tag: "Create", affinity: 1n, structure: "Memory" },
  { _tag: "SetPage", vm: 0, page: "Own", structure: "Memory" },
  { _tag: "SetRegisters", vm: 0, vcpu: 0, rax: 1, control: "Legal", structure: "Memory" }
]

/**
 * Sequences of up to {@link MAX_CALLS} calls, many of them beginning with a VM that can be started. Resumes and interrupt
 * lines are among them where the hypervisor has them.
 *
 * @category generators
 * @since 0.1.0
 */
export const sequences = (abilities: Declared): Generator<HypercallSequence> => {
  // Each of them may be left out, so that the smallest sequence has no call for nothing.
  const isKept = elementOf([false, true, true])
  // Several short lists, for a list alone would seldom be long.
  const calls = array(anyCall(abilities), { maxLength: (MAX_CALLS - READY.length) / 6 })
  return map(
    all([all([isKept, isKept, isKept]), all([calls, calls, calls, calls, calls, calls])]),
    ([kept, lists]) => [...READY.filter((_, index) => kept[index]), ...lists.flat()]
  )
}

const formatVm = (name: number): string => `VM ${name}`

const formatCall = (call: Call): string => {
  switch (call._tag) {
    case "Create":
      return `CREATE_VM with affinity ${hex(call.affinity)}${formatPlace(call)}`
    case "Destroy":
    case "Start":
    case "Pause":
    case "Reset":
      return `${call._tag.toUpperCase()}_VM ${formatVm(call.vm)}`
    case "Resume":
      return `resume ${formatVm(call.vm)}`
    case "SetRegisters":
      return `SET_VCPU_REGS ${formatVm(call.vm)}, vCPU ${call.vcpu}, RAX ${hex(call.rax)}` +
        `${call.control === "Legal" ? "" : `, ${call.control}`}${formatPlace(call)}`
    case "SetPage":
      return `SET_IOREQ_BUFFER ${formatVm(call.vm)}${call.page === "Own" ? "" : `, page ${call.page}`}` +
        formatPlace(call)
    case "Notify":
      return `NOTIFY_REQUEST_FINISH ${formatVm(call.vm)}, vCPU ${call.vcpu}` +
        (call.form === "Synchronous" ? ", by notifyFinish" : "")
    case "SetRegions":
      return `VM_SET_MEMORY_REGIONS ${formatVm(call.vm)}, [${call.operations.map(formatOperation).join("; ")}]` +
        formatPlace(call)
    case "SetIrqLine":
      return `SET_IRQLINE ${formatVm(call.vm)}, line ${call.line}, operation ${call.operation}`
    case "Unknown":
      return `unknown hypercall ${hex(call.number)}`
    case "WriteSlot":
      return `(write state ${call.state} to slot ${call.slot} of ${formatVm(call.vm)}'s page)`
  }
}

const formatPlace = ({ structure: at }: { readonly structure: "Memory" | "Nowhere" | "Wrapping" }): string =>
  at === "Memory" ? "" : at === "Nowhere" ? ", structure not in memory" : ", structure wrapping at 2^64"

const formatOperation = ({ attributes, guest, service, size, type }: Calls.RegionOperation): string =>
  `${type === MemoryRegionOpCode.Add ? "add" : `delete (type ${type})`} ${hex(size)} bytes at ${hex(guest)}` +
  (type === MemoryRegionOpCode.Add ? ` from ${service} with ${hex(attributes)}` : "")

/**
 * A sequence for people, a line for each call.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (calls: HypercallSequence): string =>
  calls.length === 0 ? "(no call)" : calls.map((call, index) => `${index + 1}. ${formatCall(call)}`).join("\n")
