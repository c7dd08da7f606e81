/**
 * Where a hypercall sequence gives something else through the real driver than on Simulated itself, as data. It is all
 * that may differ; docs/acrn.md shows the same table, and `sequenceRules.ts` tells of any call what it must give.
 * Lines are those of `drivers/virt/acrn` in Debian's linux-source-6.1 6.1.192-2.
 */
import { SlotStateCode } from "../../src/domain/abi/IoRequestSlot.ts"
import { MemoryAccess, MemoryRegionOpCode, MemoryType } from "../../src/domain/abi/MemoryRegionBatch.ts"
import type { Call, HypercallSequence } from "../../src/testing/HypercallSequence.ts"
import type { RegionOperation } from "../../src/testing/sequence/Call.ts"

/**
 * - `call`: which calls differ, and when. `direct` and `driven`: what they give on Simulated, and through the driver.
 * - `why`, and the driver's `lines` that make it so.
 * - `example`: a sequence whose last call differs by this alone.
 */
export interface SequenceDifference {
  readonly id: string
  readonly call: string
  readonly direct: string
  readonly driven: string
  readonly why: string
  readonly lines: ReadonlyArray<string>
  readonly example: HypercallSequence
}

const create: Call = { _tag: "Create", affinity: 1n, structure: "Memory" }
const setPage: Call = { _tag: "SetPage", vm: 0, page: "Own", structure: "Memory" }
const notify: Call = { _tag: "Notify", vm: 0, vcpu: 0, form: "Hypercall" }
const plain = (tag: "Destroy" | "Pause" | "Resume" | "Start", vm = 0): Call => ({ _tag: tag, vm })
const write = (state: number): Call => ({ _tag: "WriteSlot", vm: 0, slot: 0, state })

const add: RegionOperation = {
  type: MemoryRegionOpCode.Add,
  attributes: MemoryAccess.All | MemoryType.WriteBack,
  guest: 0x10_0000n,
  service: "Own",
  size: 0x1000
}
const regions = (...operations: ReadonlyArray<RegionOperation>): Call => ({
  _tag: "SetRegions",
  vm: 0,
  operations,
  structure: "Memory"
})

const differences = {
  NoSuchVm: {
    call: "any hypercall with a VM id that no VM can have",
    direct: "-25",
    driven: "-1",
    why: "a VM is an open file of the driver, and no request carries an id; the layer knows its files",
    lines: ["hsm.c:110", "hsm.c:126"],
    example: [plain("Start")]
  },
  CreateRefused: {
    call: "CREATE_VM that the hypervisor refuses",
    direct: "-1",
    driven: "-22",
    why: "the driver gives no refusal on",
    lines: ["vm.c:31", "hsm.c:145"],
    example: [{ ...create, affinity: 1n << 16n }]
  },
  NoRoom: {
    call: "CREATE_VM without room for another VM",
    direct: "0, with the VM id 0xFFFF",
    driven: "-22",
    why: "the driver looks at the id too",
    lines: ["vm.c:31", "hsm.c:145"],
    example: [create, create, create, create]
  },
  NotifyBeforePage: {
    call: "NOTIFY_REQUEST_FINISH before SET_IOREQ_BUFFER",
    direct: "-1",
    driven: "0",
    why: "CREATE_VM made SET_IOREQ_BUFFER already",
    lines: ["vm.c:43", "ioreq.c:620"],
    example: [create, notify]
  },
  NotifyCompletes: {
    call: "NOTIFY_REQUEST_FINISH, the vCPU's slot",
    direct: "as it was",
    driven: "COMPLETE",
    why: "the driver stores it, whatever the slot's state is, before it makes the hypercall",
    lines: ["ioreq.c:47", "ioreq.c:82"],
    example: [create, setPage, notify]
  },
  PendingTaken: {
    call: "a slot that was set to PENDING by hand",
    direct: "PENDING",
    driven: "PROCESSING, from the driver's next look on",
    why: "to the driver it is a guest's request; an upcall makes it look, and so does the end of any VM",
    lines: ["ioreq.c:508", "ioreq.c:533", "ioreq.c:573"],
    example: [create, setPage, write(SlotStateCode.Pending), create, plain("Pause", 1), plain("Destroy", 1)]
  },
  PageComesBack: {
    call: "a page after its VM's end, or after SET_IOREQ_BUFFER with a bad page",
    direct: "as it was",
    driven: "as it was before SET_IOREQ_BUFFER",
    why:
      "the driver's page is another, pinned once; the layer shows it in the place of the one that the hypercall names",
    lines: ["ioreq.c:602", "ioreq.c:609"],
    example: [write(SlotStateCode.Processing), create, setPage, plain("Pause"), plain("Destroy")]
  },
  RamStays: {
    call: "VM_SET_MEMORY_REGIONS that takes RAM away",
    direct: "0",
    driven: "-22",
    why: "the driver takes MMIO away, and no RAM; the layer does not ask, for it would believe that RAM is MMIO",
    lines: ["mm.c:134", "mm.c:352"],
    example: [create, regions(add), regions({ ...add, type: MemoryRegionOpCode.Delete })]
  },
  WholePages: {
    call: "VM_SET_MEMORY_REGIONS at a guest address inside of a page",
    direct: "0, at the next page",
    driven: "-22",
    why:
      "the driver counts whole pages and rounds down, the hypervisor rounds addresses up; the layer asks for neither",
    lines: ["mm.c:171", "mm.c:298"],
    example: [create, regions({ ...add, guest: 0x10_0800n })]
  },
  ForeignMemory: {
    call: "VM_SET_MEMORY_REGIONS with service memory that is none",
    direct: "-22",
    driven: "-1",
    why: "a service address is one of the process there; the driver would pin whatever the process has at it",
    lines: ["mm.c:240"],
    example: [create, regions({ ...add, service: "Nowhere" })]
  },
  Resume: {
    call: "resume, which is no hypercall (not among the random ones: the VMs would differ from there on)",
    direct: "0",
    driven: "-25",
    why: "the driver has no request for it",
    lines: ["hsm.c:165", "hsm.c:171"],
    example: [create, setPage, plain("Start"), plain("Pause"), plain("Resume")]
  }
} satisfies Record<string, Omit<SequenceDifference, "id">>

export type DifferenceId = keyof typeof differences

export const sequenceDifferences: ReadonlyArray<SequenceDifference & { readonly id: DifferenceId }> = (
  Object.keys(differences) as ReadonlyArray<DifferenceId>
).map((id) => ({ id, ...differences[id] }))
