/**
 * What each call of a hypercall sequence must give through the real driver, from what it gave on Simulated: the same,
 * but for what `sequenceDifferences.ts` lists. The VMs' states never differ, but for a resume, which ends its sequence:
 * so the rules of the one are the other's.
 */
import { SlotStateCode } from "../../src/domain/abi/IoRequestSlot.ts"
import { MemoryRegionOpCode } from "../../src/domain/abi/MemoryRegionBatch.ts"
import { Errno } from "../../src/domain/Errno.ts"
import { ADDRESS_SPACE_END, MAX_VCPUS, PAGE_BYTES } from "../../src/domain/Limits.ts"
import * as HypercallSequence from "../../src/testing/HypercallSequence.ts"
import { NAMED_VMS, type RegionOperation } from "../../src/testing/sequence/Call.ts"
import type { DifferenceId } from "./sequenceDifferences.ts"
import type { Step } from "./sequenceRuns.ts"

/** One call on both sides: by which entries of the list it differs, and what of it is by none of them. */
export interface ComparedCall {
  readonly call: HypercallSequence.Call
  readonly direct: Step
  readonly driven: Step
  readonly differences: ReadonlyArray<DifferenceId>
  readonly problem: string | undefined
}

interface Answer {
  readonly result: number
  readonly difference?: DifferenceId
}

const answers = (errno: number, difference: DifferenceId): Answer => ({ result: -errno, difference })

interface Span {
  readonly start: bigint
  readonly end: bigint
}

/** What the driver's side has for a VM of a sequence, beside what the rules know of it. */
interface Behind {
  readonly ram: Array<Span>
  /** The states of the program's own page, which is not to be seen while the driver's is shown. */
  readonly own: Array<number>
  /** What the kernel did, or may have done, to the slots of its page. */
  readonly byKernel: Array<"Completed" | "MayBeTaken" | undefined>
}

const { Complete, Pending, Processing } = SlotStateCode

const accepted: Answer = { result: 0 }

const isWholePages = (value: bigint): boolean => value % BigInt(PAGE_BYTES) === 0n

const operationThrough = (ram: Array<Span>, { guest, service, size, type }: RegionOperation): Answer => {
  const span = { start: guest, end: guest + BigInt(size) }
  if (!isWholePages(guest) || !isWholePages(BigInt(size)) || span.end > BigInt(ADDRESS_SPACE_END)) {
    return answers(Errno.EINVAL, "WholePages")
  }
  if (size === 0) return accepted
  if (type !== MemoryRegionOpCode.Add) {
    const isRam = ram.some(({ end, start }) => start < span.end && span.start < end)
    return isRam ? answers(Errno.EINVAL, "RamStays") : { result: -Errno.EINVAL }
  }
  if (service !== "Own") return answers(Errno.EPERM, "ForeignMemory")
  ram.push(span)
  return accepted
}

/** Up to the first that is refused, on either side. */
const regionsThrough = (ram: Array<Span>, operations: ReadonlyArray<RegionOperation>): Answer => {
  if (operations.length === 0) return { result: -Errno.EPERM }
  for (const operation of operations) {
    const answer = operationThrough(ram, operation)
    if (answer.result < 0) return answer
  }
  return accepted
}

const answerThrough = (
  call: HypercallSequence.Call,
  direct: Step,
  before: HypercallSequence.Model,
  behind: (vm: number) => Behind
): Answer => {
  const same: Answer = { result: direct.result }
  if (call._tag === "Unknown" || call._tag === "WriteSlot") return same
  if (call._tag === "Resume") return answers(Errno.ENOTTY, "Resume")
  if (call._tag === "Create") {
    if (direct.result === -Errno.EPERM) return answers(Errno.EINVAL, "CreateRefused")
    return direct.result === 0 && direct.vcpus === undefined ? answers(Errno.EINVAL, "NoRoom") : same
  }
  // Without its structure, nobody knows what VM it is for.
  if (call._tag === "SetRegions" && call.structure !== "Memory") return same
  const self = before.vms[call.vm]
  if (self === undefined) return direct.result === -Errno.ENOTTY ? answers(Errno.EPERM, "NoSuchVm") : same
  if (call._tag === "SetRegions") return regionsThrough(behind(call.vm).ram, call.operations)
  const isEarly = call._tag === "Notify" && !self.hasPage && indexIn(call.vcpu) < self.vcpus
  return isEarly ? { result: 0, difference: "NotifyBeforePage" } : same
}

/** Ids are cut to 16 bits, on both sides. */
const indexIn = (vcpu: number): number => vcpu % 0x1_0000

/** Keeps account of the pages, of which the kernel has its own. */
const follow = (
  call: HypercallSequence.Call,
  { result }: Answer,
  before: HypercallSequence.Model,
  after: HypercallSequence.Model,
  behind: (vm: number) => Behind
): void => {
  if (call._tag === "Create" || call._tag === "Unknown") return
  const { byKernel, own } = behind(call.vm)
  if (call._tag === "WriteSlot") {
    const self = before.vms[call.vm]
    if (self?.hasPage !== true) own[call.slot] = call.state
    else byKernel[call.slot] = call.state === Pending && call.slot < self.vcpus ? "MayBeTaken" : undefined
  } else if (call._tag === "Notify") {
    if (result === 0) byKernel[indexIn(call.vcpu)] = "Completed"
  } else if (call._tag === "SetPage" || call._tag === "Reset") {
    const isShown = after.vms[call.vm]?.hasPage === true
    // All slots are FREE then.
    if (result === 0 && isShown) byKernel.fill(undefined)
  }
}

/** The states that a slot may have through the driver, and the entry for one that it does not have on Simulated. */
const slotThrough = (
  { byKernel, own }: Behind,
  isShown: boolean,
  slot: number,
  direct: number
): { readonly states: ReadonlyArray<number>; readonly difference?: DifferenceId } => {
  if (!isShown) return { states: [own[slot]!], difference: "PageComesBack" }
  switch (byKernel[slot]) {
    case "Completed":
      return { states: [Complete], difference: "NotifyCompletes" }
    case "MayBeTaken":
      return { states: [Pending, Processing], difference: "PendingTaken" }
    case undefined:
      return { states: [direct] }
  }
}

/** Each call of a sequence, with what it gave on both sides; `abilities` are Simulated's. */
export const compare = (
  calls: HypercallSequence.HypercallSequence,
  directly: ReadonlyArray<Step>,
  throughDriver: ReadonlyArray<Step>,
  abilities: HypercallSequence.Abilities
): ReadonlyArray<ComparedCall> => {
  const rules = HypercallSequence.rules(calls, abilities)
  const behinds = Array.from({ length: NAMED_VMS }, (): Behind => ({
    ram: [],
    own: Array.from({ length: MAX_VCPUS }, () => Pending),
    byKernel: Array.from({ length: MAX_VCPUS }, () => undefined)
  }))
  const behind = (vm: number) => behinds[vm]!
  let before: HypercallSequence.Model = { vms: [], slots: [] }
  return calls.map((call, index): ComparedCall => {
    const [direct, driven, after] = [directly[index]!, throughDriver[index]!, rules[index]![1]]
    const expected = answerThrough(call, direct, before, behind)
    follow(call, expected, before, after, behind)
    before = after
    const differences = new Set<DifferenceId>()
    const problems: Array<string> = driven.problem === undefined ? [] : [driven.problem]
    if (driven.result !== expected.result) {
      problems.push(`its result is ${driven.result}, not ${expected.result} (on Simulated ${direct.result})`)
    } else if (driven.result !== direct.result) {
      if (expected.difference === undefined) problems.push(`its result is ${driven.result}, by nothing in the list`)
      else differences.add(expected.difference)
    }
    if (driven.vcpus !== direct.vcpus) problems.push(`its VM has ${driven.vcpus} vCPUs, not ${direct.vcpus}`)
    for (const [name, states] of Object.entries(direct.slots)) {
      const vm = Number(name)
      const isShown = after.vms[vm]?.hasPage === true
      for (const [slot, state] of states.entries()) {
        const legal = slotThrough(behind(vm), isShown, slot, state)
        const seen = driven.slots[vm]?.[slot]
        if (seen === undefined || !legal.states.includes(seen)) {
          problems.push(`slot ${slot} of VM ${vm}'s page has state ${seen}, not ${legal.states.join(" or ")}`)
        } else if (seen !== state && legal.difference !== undefined) differences.add(legal.difference)
      }
    }
    const problem = problems.length === 0 ? undefined : problems.join("; ")
    return { call, direct, driven, differences: [...differences], problem }
  })
}
