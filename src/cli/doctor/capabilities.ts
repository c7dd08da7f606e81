/**
 * What Upcall does with each thing that a KVM may be able to do.
 */
import { capabilityCName, type CapabilityName } from "../../layers/kvm/abi/Capability.ts"
import { NEEDED } from "../../layers/kvm/KvmSystem.ts"
import * as Table from "../Table.ts"

const USES = {
  USER_MEMORY: "guest RAM is memory of this process",
  IMMEDIATE_EXIT: "pause, and turns between vCPUs, that no guest can miss",
  MP_STATE: "start and reset of every vCPU",
  READONLY_MEM: "RAM that the guest may only read, its writes arriving as MMIO",
  IRQCHIP: "interrupts (without: interruptController \"None\")",
  PIT2: "the option timer \"Kernel\"",
  TSC_DEADLINE_TIMER: "the deadline mode of a guest's APIC timer",
  TSC_CONTROL: "the option tscKhz",
  SIGNAL_MSI: "the service Msi",
  IRQFD: "the service IrqFds",
  IRQ_ROUTING: "IrqFds that are given an MSI",
  IOEVENTFD: "the service Doorbells",
  IOEVENTFD_ANY_LENGTH: "doorbells that ring at any width",
  VCPU_EVENTS: "the service VcpuSnapshots",
  DEBUGREGS: "VcpuSnapshots",
  XSAVE: "VcpuSnapshots",
  XSAVE2: "VcpuSnapshots with wide vector registers",
  XCRS: "VcpuSnapshots of guests that use AVX",
  EXCEPTION_PAYLOAD: "VcpuSnapshots amid an exception",
  X86_TRIPLE_FAULT_EVENT: "VcpuSnapshots amid a triple fault"
} as const satisfies Partial<Record<CapabilityName, string>>

/** How many of something there can be. */
const COUNTS = {
  NR_MEMSLOTS: "pieces of memory of a VM",
  NR_VCPUS: "vCPUs of a VM, as the kernel recommends",
  MAX_VCPUS: "vCPUs of a VM, at most"
} as const satisfies Partial<Record<CapabilityName, string>>

type Extensions = ReadonlyMap<CapabilityName, number>

const entries = (texts: Partial<Record<CapabilityName, string>>): ReadonlyArray<readonly [CapabilityName, string]> =>
  Object.entries(texts) as ReadonlyArray<readonly [CapabilityName, string]>

/** All that are asked for. */
export const names: ReadonlyArray<CapabilityName> = [...entries(USES), ...entries(COUNTS)].map(([name]) => name)

const isMissing = (extensions: Extensions) => (name: CapabilityName): boolean => (extensions.get(name) ?? 0) === 0

/** Those that no VM can do without. */
export const missingNeeds = (extensions: Extensions): ReadonlyArray<CapabilityName> =>
  NEEDED.filter(isMissing(extensions))

/** Those without which some service or option is not there. */
export const missingExtras = (extensions: Extensions): ReadonlyArray<CapabilityName> =>
  entries(USES).map(([name]) => name).filter((name) => !NEEDED.includes(name)).filter(isMissing(extensions))

/** A line for each: whether it is here, and what for. */
export const format = (extensions: Extensions): string =>
  Table.format(
    [{ title: "capability", align: "left" }, { title: "here", align: "right" }, { title: "for", align: "left" }],
    [
      ...entries(USES).map(([name, use]) => [
        capabilityCName(name),
        isMissing(extensions)(name) ? "no" : "yes",
        NEEDED.includes(name) ? `${use} (needed)` : use
      ]),
      ...entries(COUNTS).map(([name, use]) => [capabilityCName(name), String(extensions.get(name) ?? 0), use])
    ]
  )
