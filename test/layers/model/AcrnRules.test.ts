/**
 * Every rule by which ACRN's own hypervisor accepts or refuses the ten hypercalls, with the function and line that says
 * so, what it answers, and what Simulated and Emulated answer: the same, or something else for a reason that is given.
 *
 * Read at commit d61d98cf800e of projectacrn/acrn-hypervisor (August 2025), in the folder `hypervisor`:
 * common/hypercall.c, arch/x86/guest/{vmcall,vm,ept,vcpu,virtual_cr}.c, arch/x86/pagetable.c, dm/{vpic,vioapic}.c,
 * include/public/acrn_hv_defs.h.
 *
 * Rules of which the model knows nothing, because nothing of it is there: VMs of a higher severity than the Service VM
 * (is_severity_pass), pre-launched VMs (vmcall.c:234), real-time VMs (vm.c:1040), local APICs that are passed through
 * (hypercall.c:226, vm.c:951).
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "../../../src/domain/abi/MemoryRegionBatch.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import { add, EINVAL, ENOTTY, EPERM, makeRaw, NO_VM, NOWHERE, type Raw } from "../../support/gate.ts"
import { onSimulated } from "../../support/machines.ts"

const OK = 0
const MAX_VMS = 4
// The VM of each row, with two vCPUs; ids above MAX_VMS are no VM's, and the others' VMs are powered off.
const VM = 1
const POWERED_OFF = 2
const OUT_OF_RANGE = MAX_VMS + 1
const SERVICE_VM = 0

const flat = VcpuRegisters.flat32({ entry: 0x1000 })

type Stage = "Created" | "WithPage" | "Running" | "Paused"

/** The one VM there is, brought to a stage of its life; a page for it, and two pages of RAM. */
const prepare = (stage: Stage) =>
  Effect.gen(function*() {
    const raw = yield* makeRaw
    assert.strictEqual((yield* raw.create(0b11n)).vmId, VM)
    const page = yield* raw.newPage()
    const { address: ram } = yield* raw.memory.allocate({ bytes: 0x2000, purpose: { _tag: "GuestRam", vmId: VM } })
    if (stage !== "Created") yield* raw.setPage(VM, BigInt(page))
    if (stage === "Running") yield* raw.start(VM)
    if (stage === "Paused") yield* raw.pause(VM)
    return { raw, page, ram }
  })

type Prepared = Effect.Success<ReturnType<typeof prepare>>

interface Rule {
  readonly rule: string
  /** Function and line in ACRN's source. */
  readonly at: string
  /** What ACRN answers. */
  readonly acrn: number
  /** What the model answers, where that is something else, and why. */
  readonly ours?: readonly [result: number, because: string]
  readonly stage?: Stage
  readonly call: (prepared: Prepared) => Effect.Effect<number, unknown>
}

const id = (name: keyof typeof HypercallId) => HypercallId[name]

/** A call that takes its VM's id from a word, and nothing else. */
const plain = (name: keyof typeof HypercallId, vmId: number) => ({ raw }: Prepared) =>
  raw.gate.call(id(name), BigInt(vmId), 0n)

/** A batch whose operations lie where they are said to. */
const batchAt = (raw: Raw, regionsNum: number, regionsGpa: bigint) =>
  raw.gate.call(
    HypercallId.SetMemoryRegions,
    raw.put(Result.getOrThrow(MemoryRegionBatch.encode({ vmid: VM, regionsNum, regionsGpa }))),
    0n
  )

const remove = (guest: number, size: number) => ({ ...add(guest, 0, size), type: 2 })

const dispatch: ReadonlyArray<Rule> = [
  {
    rule: "an id that is none",
    at: "dispatch_hypercall, vmcall.c:220",
    acrn: ENOTTY,
    call: ({ raw }) => raw.gate.call(0x8000_00ff, 0n, 0n)
  },
  {
    rule: "an id with the number of one, but not its upper bits",
    at: "HC_IDX, acrn_hv_defs.h:23, and vmcall.c:216",
    acrn: OK,
    ours: [ENOTTY, "ACRN looks at the low 8 bits alone; ids that are not the header's are mistakes"],
    call: ({ raw }) => raw.gate.call(0x12, BigInt(VM), 0n),
    stage: "WithPage"
  },
  ...(["DestroyVm", "StartVm", "PauseVm", "ResetVm"] as const).flatMap((name): ReadonlyArray<Rule> => [
    {
      rule: `${name} of an id that no VM can have`,
      at: "parse_target_vm, vmcall.c:199",
      acrn: ENOTTY,
      call: plain(name, OUT_OF_RANGE)
    },
    {
      rule: `${name} of a VM that is powered off`,
      at: "hypercall.c:271, 295, 320, 345",
      acrn: EPERM,
      call: plain(name, POWERED_OFF)
    }
  ]),
  {
    rule: "the Service VM's own id, where its state refuses",
    at: "rel_vmid_2_vmid, vm.h:228, and hypercall.c:271",
    acrn: EPERM,
    call: plain("DestroyVm", SERVICE_VM)
  },
  {
    rule: "the Service VM's own id, where its state does not",
    at: "pause_vm, vm.c:1053",
    acrn: OK,
    ours: [EPERM, "ACRN stops the Service VM itself; the model has none that could be stopped"],
    call: plain("PauseVm", SERVICE_VM)
  },
  {
    rule: "only the low 16 bits of a VM's id count",
    at: "parse_target_vm, vmcall.c:194",
    acrn: OK,
    call: ({ raw }) => raw.gate.call(HypercallId.PauseVm, 0x1_0000n + BigInt(VM), 0n)
  }
]

const create: ReadonlyArray<Rule> = [
  {
    rule: "a structure that is not there",
    at: "parse_target_vm, vmcall.c:158",
    acrn: ENOTTY,
    call: ({ raw }) => raw.gate.call(HypercallId.CreateVm, NOWHERE, 0n)
  },
  {
    rule: "some of the processors that are configured",
    at: "hcall_create_vm, hypercall.c:213",
    acrn: OK,
    call: ({ raw }) => Effect.map(raw.create(0b101n), ({ result }) => result)
  },
  {
    rule: "a processor that is not configured",
    at: "hcall_create_vm, hypercall.c:213",
    acrn: EPERM,
    call: ({ raw }) => Effect.map(raw.create(1n << 16n), ({ result }) => result)
  },
  {
    rule: "no processor is named: all that are configured",
    at: "hcall_create_vm, hypercall.c:215",
    acrn: 3,
    call: ({ raw }) => Effect.map(raw.create(0n), ({ vcpus }) => vcpus)
  },
  {
    rule: "no processor is named, for a VM that nobody configured",
    at: "allocate_dynamical_vmid, vmcall.c:128",
    acrn: 0,
    ours: [3, "a VM without vCPUs hangs the driver's client in silence; every VM of the model counts as configured"],
    call: ({ raw }) => Effect.map(raw.create(0n), ({ vcpus }) => vcpus)
  },
  {
    rule: "no VM is free",
    at: "allocate_dynamical_vmid, vmcall.c:168",
    acrn: ENOTTY,
    ours: [NO_VM, "0 and VM id 0xFFFF, hypercall.c:236, is its answer when a VM cannot be made; callers know that one"],
    call: ({ raw }) =>
      Effect.gen(function*() {
        for (let vm = VM; vm < MAX_VMS; vm++) yield* raw.create(1n)
        const { result, vmId } = yield* raw.create(1n)
        return result < 0 ? result : vmId
      })
  },
  {
    rule: "a VM of this name is there already",
    at: "get_vmid_by_name, vm.c:76, and hypercall.c:206",
    acrn: EPERM,
    ours: [OK, "where ACRN has a name Linux 6.1 has a GUID, which clients give to many VMs"],
    call: ({ raw }) => Effect.map(raw.create(1n), ({ result }) => result)
  }
]

const life: ReadonlyArray<Rule> = [
  ...([["Created", EPERM], ["WithPage", EPERM], ["Running", EPERM], ["Paused", OK]] as const).map((
    [stage, acrn]
  ): Rule => ({
    rule: `DESTROY_VM, ${stage}`,
    at: "hcall_destroy_vm, hypercall.c:271",
    acrn,
    stage,
    call: plain("DestroyVm", VM)
  })),
  ...([["Created", EPERM], ["WithPage", OK], ["Running", EPERM], ["Paused", EPERM]] as const).map((
    [stage, acrn]
  ): Rule => ({
    rule: `START_VM, ${stage}`,
    at: "hcall_start_vm, hypercall.c:295",
    acrn,
    stage,
    call: plain("StartVm", VM)
  })),
  ...(["Created", "WithPage", "Running", "Paused"] as const).map((stage): Rule => ({
    rule: `PAUSE_VM, ${stage}`,
    at: "hcall_pause_vm, hypercall.c:320",
    acrn: OK,
    stage,
    call: plain("PauseVm", VM)
  })),
  ...([["Created", EPERM], ["WithPage", EPERM], ["Running", EPERM], ["Paused", OK]] as const).map((
    [stage, acrn]
  ): Rule => ({
    rule: `RESET_VM, ${stage}`,
    at: "hcall_reset_vm, hypercall.c:345",
    acrn,
    stage,
    call: plain("ResetVm", VM)
  }))
]

const registers: ReadonlyArray<Rule> = [
  ...([["Created", OK], ["Running", EPERM], ["Paused", OK]] as const).map(([stage, acrn]): Rule => ({
    rule: stage,
    at: "hcall_set_vcpu_regs, hypercall.c:376",
    acrn,
    stage,
    call: ({ raw }) => raw.setRegisters(VM, 1, flat)
  })),
  {
    rule: "powered off",
    at: "hcall_set_vcpu_regs, hypercall.c:376",
    acrn: EPERM,
    call: ({ raw }) => raw.setRegisters(POWERED_OFF, 0, flat)
  },
  {
    rule: "no address",
    at: "hcall_set_vcpu_regs, hypercall.c:376",
    acrn: EPERM,
    call: ({ raw }) => raw.gate.call(HypercallId.SetVcpuRegs, BigInt(VM), 0n)
  },
  {
    rule: "a structure that is not there",
    at: "hcall_set_vcpu_regs, hypercall.c:377",
    acrn: EPERM,
    call: ({ raw }) => raw.gate.call(HypercallId.SetVcpuRegs, BigInt(VM), NOWHERE)
  },
  {
    rule: "a structure that is not there, for an id that no VM can have",
    at: "parse_target_vm, vmcall.c:199",
    acrn: ENOTTY,
    ours: [EPERM, "the gate reads structures before the model looks for the VM; a refusal either way"],
    call: ({ raw }) => raw.gate.call(HypercallId.SetVcpuRegs, BigInt(OUT_OF_RANGE), NOWHERE)
  },
  {
    rule: "a vCPU that no VM can have",
    at: "hcall_set_vcpu_regs, hypercall.c:378",
    acrn: EPERM,
    call: ({ raw }) => raw.setRegisters(VM, 0xffff, flat)
  },
  {
    rule: "a vCPU that this VM does not have",
    at: "hcall_set_vcpu_regs, hypercall.c:382",
    acrn: EPERM,
    call: ({ raw }) => raw.setRegisters(VM, 2, flat)
  },
  {
    rule: "CR0 that no guest can have",
    at: "is_valid_cr0_cr4, virtual_cr.c:336",
    acrn: EPERM,
    call: ({ raw }) => raw.setRegisters(VM, 0, { ...flat, cr0: 1n })
  },
  {
    rule: "CR4 that no guest can have",
    at: "is_valid_cr0_cr4, virtual_cr.c:336",
    acrn: EPERM,
    call: ({ raw }) => raw.setRegisters(VM, 0, { ...flat, cr4: 1n << 63n })
  }
]

const requestPage: ReadonlyArray<Rule> = [
  ...([["Created", OK], ["WithPage", OK], ["Running", EPERM], ["Paused", EPERM]] as const).map((
    [stage, acrn]
  ): Rule => ({
    rule: stage,
    at: "hcall_set_ioreq_buffer, hypercall.c:492",
    acrn,
    stage,
    call: ({ page, raw }) => raw.setPage(VM, BigInt(page))
  })),
  {
    rule: "a structure that is not there leaves the page",
    at: "hcall_set_ioreq_buffer, hypercall.c:495",
    acrn: OK,
    stage: "WithPage",
    call: ({ raw }) => Effect.andThen(raw.gate.call(HypercallId.SetIoRequestBuffer, BigInt(VM), NOWHERE), raw.start(VM))
  },
  {
    rule: "a page that is not there",
    at: "hcall_set_ioreq_buffer, hypercall.c:500",
    acrn: EPERM,
    call: ({ raw }) => raw.setPage(VM, NOWHERE)
  },
  {
    rule: "a page that is not there takes the old one away",
    at: "hcall_set_ioreq_buffer, hypercall.c:503",
    acrn: EPERM,
    stage: "WithPage",
    call: ({ raw }) => Effect.andThen(raw.setPage(VM, NOWHERE), raw.start(VM))
  },
  {
    rule: "a page that begins nowhere near one",
    at: "hcall_set_ioreq_buffer, hypercall.c:499",
    acrn: OK,
    ours: [EPERM, "ACRN writes slots beyond the page then; the driver's pages are always aligned"],
    call: ({ page, raw }) => raw.setPage(VM, BigInt(page) + 8n)
  },
  {
    rule: "all 16 slots are FREE afterwards",
    at: "hcall_set_ioreq_buffer, hypercall.c:506",
    acrn: 16 * 3,
    call: ({ page, raw }) =>
      Effect.map(raw.setPage(VM, BigInt(page)), () => raw.states(page).reduce((sum, state) => sum + state, 0))
  },
  {
    rule: "all 16 slots are FREE after RESET_VM",
    at: "reset_vm_ioreqs, io_req.c:57",
    acrn: 16 * 3,
    stage: "Paused",
    call: ({ page, raw }) => {
      const view = Result.getOrThrow(raw.memory.page(page))
      for (let slot = 0; slot < 16; slot++) view.store32(slot * 256 + 136, slot % 3)
      return Effect.map(raw.reset(VM), () => raw.states(page).reduce((sum, state) => sum + state, 0))
    }
  }
]

const notify: ReadonlyArray<Rule> = [
  ...([["Created", EPERM], ["WithPage", OK], ["Running", OK], ["Paused", OK]] as const).map(([stage, acrn]): Rule => ({
    rule: stage,
    at: "hcall_notify_ioreq_finish, hypercall.c:591",
    acrn,
    stage,
    call: ({ raw }) => raw.notify(VM, 1n)
  })),
  {
    rule: "powered off",
    at: "hcall_notify_ioreq_finish, hypercall.c:591",
    acrn: EPERM,
    call: ({ raw }) => raw.notify(POWERED_OFF, 0n)
  },
  {
    rule: "a vCPU that this VM does not have",
    at: "hcall_notify_ioreq_finish, hypercall.c:596",
    acrn: EPERM,
    stage: "WithPage",
    call: ({ raw }) => raw.notify(VM, 2n)
  },
  {
    rule: "only the low 16 bits of the vCPU's id count",
    at: "hcall_notify_ioreq_finish, hypercall.c:588",
    acrn: OK,
    stage: "WithPage",
    call: ({ raw }) => raw.notify(VM, 0xabcd_0001n)
  }
]

const regions: ReadonlyArray<Rule> = [
  {
    rule: "a batch that is not there",
    at: "parse_target_vm, vmcall.c:180",
    acrn: ENOTTY,
    call: ({ raw }) => raw.gate.call(HypercallId.SetMemoryRegions, NOWHERE, 0n)
  },
  {
    rule: "an id that no VM can have",
    at: "parse_target_vm, vmcall.c:199",
    acrn: ENOTTY,
    call: ({ ram, raw }) => raw.regions(OUT_OF_RANGE, [add(0, ram, 0x1000)])
  },
  {
    rule: "powered off",
    at: "hcall_set_vm_memory_regions, hypercall.c:717",
    acrn: EPERM,
    call: ({ ram, raw }) => raw.regions(POWERED_OFF, [add(0, ram, 0x1000)])
  },
  ...(["Created", "Running", "Paused"] as const).map((stage): Rule => ({
    rule: stage,
    at: "hcall_set_vm_memory_regions, hypercall.c:717",
    acrn: OK,
    stage,
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x1000)])
  })),
  {
    rule: "no operation",
    at: "hcall_set_vm_memory_regions, hypercall.c:713",
    acrn: EPERM,
    call: ({ raw }) => raw.regions(VM, [])
  },
  {
    rule: "operations of which the first is not there",
    at: "hcall_set_vm_memory_regions, hypercall.c:721",
    acrn: EPERM,
    call: ({ raw }) => batchAt(raw, 1, NOWHERE)
  },
  {
    rule: "operations of which only the first is there",
    at: "hcall_set_vm_memory_regions, hypercall.c:723",
    acrn: OK,
    ours: [EPERM, "ACRN applies the first and reports success; here nothing is applied and the caller hears of it"],
    call: ({ ram, raw }) => {
      raw.put(Result.getOrThrow(MemoryRegionOp.encode(add(0, ram, 0x1000))), ram + 0x2000 - MemoryRegionOp.size)
      return batchAt(raw, 2, BigInt(ram + 0x2000 - MemoryRegionOp.size))
    }
  },
  {
    rule: "more operations than any driver can send, of which the first is not there",
    at: "hcall_set_vm_memory_regions, hypercall.c:720",
    acrn: EPERM,
    ours: [EINVAL, "bounds the memory that a hostile count can make a program allocate"],
    call: ({ raw }) => batchAt(raw, 0xffff_ffff, NOWHERE)
  },
  {
    rule: "a size that is no multiple of a page",
    at: "set_vm_memory_region, hypercall.c:671",
    acrn: EINVAL,
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x1800)])
  },
  {
    rule: "no page at all, added or removed",
    at: "ept_is_valid_mr, ept.c:220",
    acrn: OK,
    call: ({ raw }) => raw.regions(VM, [add(0, Number(NOWHERE), 0), remove(0x1000, 0)])
  },
  {
    rule: "service memory that is not there",
    at: "set_vm_memory_region, hypercall.c:675",
    acrn: EINVAL,
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x8_0000)])
  },
  {
    rule: "a page that is mapped already keeps what it has",
    at: "add_pte, pagetable.c:397",
    acrn: OK,
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x1000), add(0, ram + 0x1000, 0x1000)])
  },
  {
    rule: "every type but 0 removes",
    at: "set_vm_memory_region, hypercall.c:680",
    acrn: OK,
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x1000), { ...remove(0, 0x1000), type: 7 }])
  },
  {
    rule: "a page that is not mapped cannot be removed",
    at: "set_vm_memory_region, hypercall.c:681",
    acrn: EINVAL,
    call: ({ raw }) => raw.regions(VM, [remove(0, 0x1000)])
  },
  {
    rule: "nothing is removed of what is partly mapped",
    at: "set_vm_memory_region, hypercall.c:681",
    acrn: OK,
    call: ({ ram, raw }) =>
      Effect.andThen(
        raw.regions(VM, [add(0, ram, 0x1000), remove(0, 0x2000)]),
        raw.regions(VM, [remove(0, 0x1000)])
      )
  },
  {
    rule: "a page without rights is not mapped",
    at: "pgentry_present, pgtable.h:234, and init_ept_pgtable, ept.c:186",
    acrn: EINVAL,
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x1000, 0, 0x40), remove(0, 0x1000)])
  },
  {
    rule: "addresses are rounded up to a page",
    at: "pgtable_add_map, pagetable.c:561",
    acrn: OK,
    call: ({ ram, raw }) => raw.regions(VM, [add(0x123, ram + 0x456, 0x1000), remove(0x1000, 0x1000)])
  },
  {
    rule: "the page after rounding is not there, but the one before is",
    at: "ept_is_valid_mr, ept.c:218, and pgtable_add_map, pagetable.c:562",
    acrn: OK,
    ours: [EINVAL, "ACRN looks at the page before rounding, and maps one that it never saw"],
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram + 0x1800, 0x1000)])
  },
  {
    rule: "the page to remove after rounding is not mapped, but the one before is",
    at: "ept_is_valid_mr, ept.c:218, and pgtable_modify_or_del_map, pagetable.c:360",
    acrn: OK,
    ours: [EINVAL, "ACRN looks at the page before rounding, and removes nothing"],
    call: ({ ram, raw }) => raw.regions(VM, [add(0, ram, 0x1000), remove(0x800, 0x1000)])
  },
  {
    rule: "a range that wraps around at 2^64",
    at: "ept_is_valid_mr, ept.c:218",
    acrn: OK,
    ours: [EINVAL, "ACRN checks nothing of it, and maps nothing or garbage"],
    call: ({ ram, raw }) => raw.regions(VM, [{ ...add(0, ram, 0), size: (1n << 64n) - 0x1000n }])
  },
  {
    rule: "a guest address beyond its address space",
    at: "pml4e_index, pgtable.h:337, which cuts it to 48 bits",
    acrn: OK,
    ours: [EINVAL, "ACRN maps another address than it was told"],
    call: ({ ram, raw }) => raw.regions(VM, [{ ...add(0, ram, 0x1000), userVmPa: 1n << 52n }])
  }
]

const irqLine: ReadonlyArray<Rule> = [
  {
    rule: "an id that no VM can have",
    at: "parse_target_vm, vmcall.c:199",
    acrn: ENOTTY,
    call: ({ raw }) => raw.irq(OUT_OF_RANGE, 4, 0)
  },
  {
    rule: "powered off",
    at: "hcall_set_irqline, hypercall.c:421",
    acrn: EPERM,
    call: ({ raw }) => raw.irq(POWERED_OFF, 4, 0)
  },
  ...(["Created", "Running", "Paused"] as const).map((stage): Rule => ({
    rule: stage,
    at: "hcall_set_irqline, hypercall.c:421",
    acrn: OK,
    stage,
    call: ({ raw }) => raw.irq(VM, 4, 2)
  })),
  {
    rule: "a line that is none",
    at: "hcall_set_irqline, hypercall.c:422",
    acrn: EPERM,
    call: ({ raw }) => raw.irq(VM, 48, 0)
  },
  {
    rule: "a line of the I/O APIC alone",
    at: "hcall_set_irqline, hypercall.c:423, with VIOAPIC_RTE_NUM, acrn_common.h:47",
    acrn: OK,
    ours: [EPERM, "there is no I/O APIC here: nobody would hear of it"],
    call: ({ raw }) => raw.irq(VM, 16, 0)
  },
  {
    rule: "an operation that is none does nothing",
    at: "vpic_set_irqline, vpic.c:571, and vioapic_set_irqline_nolock, vioapic.c:177",
    acrn: OK,
    call: ({ raw }) => raw.irq(VM, 4, 4)
  }
]

describe("ACRN's rules", () => {
  for (
    const [hypercall, rules] of [
      ["any hypercall", dispatch],
      ["CREATE_VM", create],
      ["the life of a VM", life],
      ["SET_VCPU_REGS", registers],
      ["SET_IOREQ_BUFFER", requestPage],
      ["NOTIFY_REQUEST_FINISH", notify],
      ["VM_SET_MEMORY_REGIONS", regions],
      ["SET_IRQLINE", irqLine]
    ] as const
  ) {
    describe(hypercall, () => {
      for (const { acrn, at, call, ours, rule, stage } of rules) {
        const differs = ours === undefined ? "" : `; here ${ours[0]}: ${ours[1]}`
        it.effect(`${rule}: ${acrn} (${at})${differs}`, () =>
          Effect.gen(function*() {
            const prepared = yield* prepare(stage ?? "Created")
            assert.strictEqual(yield* call(prepared), ours?.[0] ?? acrn)
          }).pipe(onSimulated({ maxVms: MAX_VMS, configuredVcpus: 3 })))
      }
    })
  }
})
