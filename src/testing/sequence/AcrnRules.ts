/**
 * ACRN's rules for hypercalls as a pure function, as short and plain as they can be said: from what VMs there are and a
 * call to its result and what VMs there are then. Whatever gives a negative result changes nothing, but for two calls:
 * SET_IOREQ_BUFFER with a bad page, and a batch whose first operations were taken.
 *
 * Each rule names its function in ACRN's `hypervisor/common/hypercall.c`. It knows nothing of Upcall's own model.
 */
import { SlotStateCode } from "../../domain/abi/IoRequestSlot.ts"
import { MEMORY_ACCESS_MASK, MemoryRegionOpCode } from "../../domain/abi/MemoryRegionBatch.ts"
import { Errno } from "../../domain/Errno.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../../domain/Limits.ts"
import { type Call, NAMED_VMS, type RegionOperation } from "./Call.ts"

/** What rules depend on, beside the calls so far. */
export interface Abilities {
  readonly profile: HypervisorProfile
  /** Whether paused VMs can be run on; ACRN cannot. */
  readonly resumes: boolean
  /** Lines of a VM's interrupt controllers; `undefined` where they are not known. */
  readonly irqLines: number | undefined
  /** VMs at once, as far as sequences get. */
  readonly maxVms: number
  /** vCPUs of a VM that is created with an empty affinity. */
  readonly configuredVcpus: number
}

export interface VmModel {
  readonly vcpus: number
  readonly state: "Created" | "Running" | "Paused"
  /** Whether it ran before it was paused. */
  readonly ran: boolean
  readonly hasPage: boolean
  /** The numbers of the guest pages that are mapped. */
  readonly mapped: ReadonlySet<bigint>
  /** RAX of each vCPU whose registers were set. */
  readonly registers: ReadonlyMap<number, number>
}

export interface Model {
  /** By the order of their creation; `undefined` is one that was destroyed. */
  readonly vms: ReadonlyArray<VmModel | undefined>
  /** The states of the 16 slots of each named VM's page. */
  readonly slots: ReadonlyArray<ReadonlyArray<number>>
}

/** The results of which a call gives one, and the vCPUs of the VM that it made. */
export interface Expected {
  readonly results: ReadonlyArray<number>
  readonly vcpus?: number
}

const allSlots = (state: number): ReadonlyArray<number> => Array.from({ length: MAX_VCPUS }, () => state)

/** Before the first call: no VM, and pages that are zero, which reads as PENDING. */
export const initial: Model = {
  vms: [],
  slots: Array.from({ length: NAMED_VMS }, () => allSlots(SlotStateCode.Pending))
}

const EPERM = [-Errno.EPERM]
const EINVAL = [-Errno.EINVAL]
const ENOTTY = [-Errno.ENOTTY]
const OK = [0]
// dispatch_hypercall: by ACRN's version, and by whether there ever could be such a VM.
const NO_SUCH_VM = [-Errno.EINVAL, -Errno.EPERM, -Errno.ENOTTY]
// hcall_create_vm answers 0 and the VM id 0xFFFF; today's dispatch_hypercall finds no VM to call it for.
const NO_ROOM = [0, -Errno.ENOTTY, -Errno.EPERM]

type Answer = readonly [Expected, Model]

export const step = (model: Model, call: Call, abilities: Abilities): Answer => {
  const refused = (results: ReadonlyArray<number> = EPERM): Answer => [{ results }, model]
  switch (call._tag) {
    // Not a hypercall: the Service VM writes to its own page.
    case "WriteSlot": {
      const slots = model.slots[call.vm]!.with(call.slot, call.state)
      return [{ results: OK }, { ...model, slots: model.slots.with(call.vm, slots) }]
    }
    // dispatch_hypercall
    case "Unknown":
      return refused([-Errno.ENOTTY])
    // hcall_create_vm; without its structure, dispatch_hypercall finds no VM to call it for.
    case "Create": {
      if (call.structure !== "Memory") return refused(ENOTTY)
      const vcpus = call.affinity === 0n ? abilities.configuredVcpus : countBits(call.affinity)
      const isLegal = call.affinity >> BigInt(MAX_VCPUS) === 0n && vcpus <= abilities.profile.maxVcpus
      if (!isLegal) return refused()
      if (model.vms.filter((vm) => vm !== undefined).length === abilities.maxVms) return refused(NO_ROOM)
      const made: VmModel = {
        vcpus,
        state: "Created",
        ran: false,
        hasPage: false,
        mapped: new Set(),
        registers: new Map()
      }
      return [{ results: OK, vcpus }, { ...model, vms: [...model.vms, made] }]
    }
    default: {
      const self = model.vms[call.vm]
      return self === undefined ? refused(NO_SUCH_VM) : stepOf(self, model, call, abilities)
    }
  }
}

type VmCall = Exclude<Call, { readonly _tag: "WriteSlot" | "Unknown" | "Create" }>

/** A call on a VM that is there. */
const stepOf = (self: VmModel, model: Model, call: VmCall, abilities: Abilities): Answer => {
  const become = (change: Partial<VmModel>): Model => ({
    ...model,
    vms: model.vms.with(call.vm, { ...self, ...change })
  })
  const accepted = (after: Model = model): Answer => [{ results: OK }, after]
  const refused = (results: ReadonlyArray<number> = EPERM): Answer => [{ results }, model]
  const withFreeSlots = (after: Model): Model => ({
    ...after,
    slots: after.slots.with(call.vm, allSlots(SlotStateCode.Free))
  })
  switch (call._tag) {
    // hcall_destroy_vm: a paused VM only.
    case "Destroy":
      return self.state === "Paused" ? accepted({ ...model, vms: model.vms.with(call.vm, undefined) }) : refused()
    // hcall_start_vm: a created VM whose page is set.
    case "Start":
      return self.state === "Created" && self.hasPage ? accepted(become({ state: "Running" })) : refused()
    // hcall_pause_vm: any VM.
    case "Pause":
      return accepted(self.state === "Paused" ? model : become({ state: "Paused", ran: self.state === "Running" }))
    // hcall_reset_vm: a paused VM only; its page stays, with every slot FREE.
    case "Reset": {
      if (self.state !== "Paused") return refused()
      const after = become({ state: "Created" })
      return accepted(self.hasPage ? withFreeSlots(after) : after)
    }
    // Not ACRN's: a paused VM that ran before runs on.
    case "Resume":
      if (!abilities.resumes) return refused([-Errno.ENOTTY])
      return self.state === "Paused" && self.ran ? accepted(become({ state: "Running" })) : refused()
    // hcall_set_vcpu_regs: any but a running VM, a vCPU that it has, CR0 and CR4 that a guest can have.
    case "SetRegisters":
      return self.state !== "Running" && call.structure === "Memory" && call.vcpu < self.vcpus &&
          call.control === "Legal"
        ? accepted(become({ registers: new Map([...self.registers, [call.vcpu, call.rax]]) }))
        : refused()
    // hcall_set_ioreq_buffer: a created VM only; a bad page takes the old one away. ACRN itself would take a page that
    // is not aligned, and write beyond it; Upcall's layers do not.
    case "SetPage":
      if (self.state !== "Created" || call.structure !== "Memory") return refused()
      return call.page === "Own"
        ? accepted(withFreeSlots(become({ hasPage: true })))
        : [{ results: EPERM }, become({ hasPage: false })]
    // hcall_notify_ioreq_finish: any VM whose page is set, a vCPU that it has, by the low 16 bits of its id.
    case "Notify":
      return self.hasPage && call.vcpu % 0x1_0000 < self.vcpus ? accepted() : refused()
    // hcall_set_vm_memory_regions: in order, up to the first that is refused; none at all is refused too.
    case "SetRegions": {
      if (call.structure !== "Memory") return refused(ENOTTY)
      if (call.operations.length === 0) return refused()
      const mapped = new Set(self.mapped)
      const isAll = call.operations.every((operation) => isTaken(operation, mapped, abilities.profile))
      return [{ results: isAll ? OK : EINVAL }, become({ mapped })]
    }
    // hcall_set_irqline; ACRN ignores an operation that is none.
    case "SetIrqLine":
      if (abilities.irqLines === undefined || call.line >= abilities.irqLines) return refused([...EINVAL, ...EPERM])
      return call.operation < 4 ? accepted() : refused([...OK, ...EINVAL])
  }
}

/**
 * set_vm_memory_region: whole pages, inside the guest's addresses; for pages that are added, memory behind them; pages
 * that are removed must be mapped, all of them. A page that is added without any right is not mapped.
 */
const isTaken = (
  { attributes, guest, service, size, type }: RegionOperation,
  mapped: Set<bigint>,
  profile: HypervisorProfile
): boolean => {
  // The one mapping there is, of a VM's own RAM, is none that a sequence asks for.
  if (profile.mapping === "OneBlockFromZero" || size % PAGE_BYTES !== 0) return false
  const pages = BigInt(PAGE_BYTES)
  const first = (guest + pages - 1n) / pages
  if (first * pages + BigInt(size) > 1n << BigInt(profile.addressBits)) return false
  const numbers = Array.from({ length: size / PAGE_BYTES }, (_, index) => first + BigInt(index))
  if (type !== MemoryRegionOpCode.Add) {
    if (!numbers.every((page) => mapped.has(page))) return false
    for (const page of numbers) mapped.delete(page)
    return true
  }
  if (service !== "Own" && size > 0) return false
  if ((attributes & MEMORY_ACCESS_MASK) !== 0) { for (const page of numbers) mapped.add(page) }
  return true
}

const countBits = (word: bigint): number => {
  let count = 0
  for (let rest = word; rest !== 0n; rest >>= 1n) count += Number(rest & 1n)
  return count
}
