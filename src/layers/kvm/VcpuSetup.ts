/**
 * What a plain VMM tells KVM of a VM and of each of its vCPUs before they are given registers.
 *
 * All else KVM makes as the processor's own reset does, which a test looks at: SYSENTER's and SYSCALL's registers are 0,
 * and the page attribute table has the reset value of Intel SDM volume 3, section 13.12.4.
 */
import * as Result from "effect/Result"
import { Errno } from "../../domain/Errno.ts"
import type { Libc } from "../native/Libc.ts"
import { Capability, type CapabilityName, EnableCap } from "./abi/Capability.ts"
import { Cpuid2, type CpuidEntry2 } from "./abi/Cpuid.ts"
import { KvmIoctl } from "./abi/KvmIoctl.ts"
import { type MsrEntry, Msrs } from "./abi/Msr.ts"
import { leavesFor, plainLeaves } from "./cpuid.ts"
import type { KvmSystem } from "./KvmSystem.ts"
import { TSC } from "./snapshot/msrs.ts"
import type { VcpuFile } from "./VcpuFile.ts"
import { disableLocalApic } from "./vcpuState.ts"

export interface VcpuSetupOptions {
  readonly hasLocalApic: boolean
  readonly cpu: "Host" | "Plain"
  /** The rate of the guest's time stamp counter; `undefined` is the host's. */
  readonly tscKhz: number | undefined
}

const MSRS: ReadonlyArray<MsrEntry> = [
  // IA32_MISC_ENABLE: fast strings, which are on in every processor that firmware hands over (SDM volume 4, table 2-2).
  { index: 0x1a0, data: 1n },
  // IA32_MTRR_DEF_TYPE: all memory is write-back (6), and the ranges count (bit 11). After reset it is uncachable until
  // firmware does this (SDM volume 3, section 13.11.2.1), and guests here have none.
  { index: 0x2ff, data: 0x806n }
]

/**
 * With these KVM tells apart an exception that waits from one whose delivery has begun, and tells of a triple fault that
 * waits: a snapshot without them can lose either (Linux Documentation/virt/kvm/api.rst, section 4.31).
 */
const EXACT_EVENTS: ReadonlyArray<CapabilityName> = ["EXCEPTION_PAYLOAD", "X86_TRIPLE_FAULT_EVENT"]

const msrs = Result.getOrThrow(Msrs.encode(MSRS))

// KVM takes a written 0 for a vCPU that starts, and lets those that start together have one counter.
const tscZero = Result.getOrThrow(Msrs.encode([{ index: TSC, data: 0n }]))

export class VcpuSetup {
  private readonly libc: Libc
  private readonly leaves: ReadonlyArray<CpuidEntry2>
  private readonly hasTscDeadline: boolean
  private readonly exactEvents: ReadonlyArray<Uint8Array>
  private readonly options: VcpuSetupOptions
  /** Encoded leaves by vCPU, for VMs of the size that was made last. */
  private encoded: Array<Uint8Array> = []
  private encodedFor = 0

  constructor(libc: Libc, system: KvmSystem, options: VcpuSetupOptions) {
    this.libc = libc
    this.leaves = options.cpu === "Plain" ? plainLeaves(system.cpuid) : system.cpuid
    this.hasTscDeadline = system.extension("TSC_DEADLINE_TIMER") > 0
    this.exactEvents = EXACT_EVENTS.filter((name) => system.extension(name) > 0).map((name) =>
      Result.getOrThrow(EnableCap.encode({ cap: Capability[name], flags: 0, args: [1n, 0n, 0n, 0n] }))
    )
    this.options = options
  }

  /** Sets up a new VM, given by its file, before it has vCPUs. */
  prepare(vm: number): void {
    for (const capability of this.exactEvents) this.libc.ioctlAt(vm, KvmIoctl.ENABLE_CAP, capability)
  }

  /** Sets up one of `vcpus` new vCPUs: 0, or the negative errno of the first step that failed. */
  apply(vcpu: VcpuFile, vcpus: number): number {
    const { hasLocalApic, tscKhz } = this.options
    let result = vcpu.ask(KvmIoctl.SET_CPUID2, this.leavesOf(vcpu.id, vcpus))
    if (result < 0) return result
    if (tscKhz !== undefined) {
      result = this.libc.ioctl(vcpu.fd, KvmIoctl.SET_TSC_KHZ, tscKhz)
      if (result < 0) return result
    }
    result = vcpu.ask(KvmIoctl.SET_MSRS, msrs)
    if (result < MSRS.length) return result < 0 ? result : -Errno.EINVAL
    return hasLocalApic ? 0 : disableLocalApic(vcpu)
  }

  private leavesOf(vcpu: number, vcpus: number): Uint8Array {
    if (this.encodedFor !== vcpus) {
      this.encoded = []
      this.encodedFor = vcpus
    }
    return this.encoded[vcpu] ??= Result.getOrThrow(Cpuid2.encode(leavesFor(this.leaves, {
      vcpu,
      vcpus,
      hasLocalApic: this.options.hasLocalApic,
      hasTscDeadline: this.hasTscDeadline
    })))
  }
}

/** Makes a vCPU's time stamp counter begin at 0 now, so that those of one VM agree. */
export const startCounter = (vcpu: VcpuFile): void => {
  // A KVM that cannot move the counter leaves it the host's, which all vCPUs share.
  vcpu.ask(KvmIoctl.SET_MSRS, tscZero)
}
