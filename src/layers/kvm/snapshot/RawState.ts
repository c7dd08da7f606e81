/**
 * The whole state of a vCPU in the kernel's own structures, read and written in the orders that KVM needs.
 */
import * as Result from "effect/Result"
import type { Libc } from "../../native/Libc.ts"
import { Xcrs, Xsave } from "../abi/FloatingPoint.ts"
import { LapicState } from "../abi/Interrupts.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import type { MsrEntry } from "../abi/Msr.ts"
import { DebugRegs, Regs, Sregs } from "../abi/Registers.ts"
import { MpState, VcpuEvents } from "../abi/VcpuEvents.ts"
import type { KvmSystem } from "../KvmSystem.ts"
import type { VcpuFile } from "../VcpuFile.ts"
import { setTaskPriority } from "../vcpuState.ts"
import { msrIndices, readMsrs, TSC, writeMsrs } from "./msrs.ts"

/** Each part's bytes; `undefined` where this KVM, or this VM, has no such part. */
export interface RawState {
  readonly special: Uint8Array
  readonly general: Uint8Array
  readonly xsave: Uint8Array
  readonly xcrs: Uint8Array | undefined
  readonly debug: Uint8Array
  readonly localApic: Uint8Array | undefined
  readonly msrs: ReadonlyArray<MsrEntry>
  /** The time stamp counter; `undefined` leaves it alone. */
  readonly tsc: bigint | undefined
  readonly activity: Uint8Array
  readonly events: Uint8Array
}

export type Part = keyof RawState

/** What KVM did not let be read or written, a vCPU's part or the VM's chips. `result` is the negative errno. */
export interface Refusal {
  readonly part: Part | "chips"
  readonly result: number
  readonly msr?: MsrEntry | undefined
}

export const isRefusal = (value: object): value is Refusal => "part" in value

interface Access {
  readonly part: Exclude<Part, "msrs" | "tsc">
  readonly get: number
  readonly set: number
  readonly bytes: number
}

/**
 * The order in which parts are written.
 *
 * - SREGS before REGS: CR0 says what RFLAGS may be on processors that run real mode as virtual 8086 mode.
 * - SREGS before LAPIC: IA32_APIC_BASE turns the chip on, and says which form its page has.
 * - LAPIC before the MSRs: a deadline of the time stamp counter counts only when the chip's timer is in that mode.
 * - SREGS and REGS before MP_STATE: setting the boot processor to the reset vector makes it runnable.
 * - REGS before EVENTS: it drops a pending exception; and SREGS before EVENTS, since it queues an interrupt.
 */
const BEFORE_MSRS = ["special", "general", "xsave", "xcrs", "debug", "localApic"] as const
const AFTER_MSRS = ["activity", "events"] as const

/** Reads and writes the vCPUs of one hypervisor, which are all alike. */
export class StateAccess {
  private readonly accesses: ReadonlyMap<Part, Access>
  /** Those that could not be read are asked for once. */
  private indices: ReadonlyArray<number>

  private constructor(accesses: ReadonlyArray<Access>, indices: ReadonlyArray<number>) {
    this.accesses = new Map(accesses.map((access) => [access.part, access]))
    this.indices = indices
  }

  /** The negative errno when KVM does not tell its registers. */
  static make(libc: Libc, system: KvmSystem, hasLocalApic: boolean): StateAccess | number {
    const indices = msrIndices(libc, system)
    if (typeof indices === "number") return indices
    const xsaveBytes = Math.max(Xsave.size, system.extension("XSAVE2"))
    const getXsave = xsaveBytes > Xsave.size ? KvmIoctl.GET_XSAVE2 : KvmIoctl.GET_XSAVE
    const accesses: Array<Access> = [
      { part: "special", get: KvmIoctl.GET_SREGS, set: KvmIoctl.SET_SREGS, bytes: Sregs.size },
      { part: "general", get: KvmIoctl.GET_REGS, set: KvmIoctl.SET_REGS, bytes: Regs.size },
      { part: "xsave", get: getXsave, set: KvmIoctl.SET_XSAVE, bytes: xsaveBytes },
      { part: "debug", get: KvmIoctl.GET_DEBUGREGS, set: KvmIoctl.SET_DEBUGREGS, bytes: DebugRegs.size },
      { part: "activity", get: KvmIoctl.GET_MP_STATE, set: KvmIoctl.SET_MP_STATE, bytes: MpState.size },
      { part: "events", get: KvmIoctl.GET_VCPU_EVENTS, set: KvmIoctl.SET_VCPU_EVENTS, bytes: VcpuEvents.size }
    ]
    if (system.extension("XCRS") > 0) {
      accesses.push({ part: "xcrs", get: KvmIoctl.GET_XCRS, set: KvmIoctl.SET_XCRS, bytes: Xcrs.size })
    }
    if (hasLocalApic) {
      accesses.push({ part: "localApic", get: KvmIoctl.GET_LAPIC, set: KvmIoctl.SET_LAPIC, bytes: LapicState.size })
    }
    return new StateAccess(accesses, indices)
  }

  /** The vCPU must not run. */
  read(vcpu: VcpuFile): RawState | Refusal {
    const bytes: Partial<Record<Part, Uint8Array>> = {}
    // MP_STATE comes first: reading it lets the vCPU take an INIT or SIPI that waits, which changes all the others.
    for (const part of [...AFTER_MSRS, ...BEFORE_MSRS]) {
      const access = this.accesses.get(part)
      if (access === undefined) continue
      const into = new Uint8Array(access.bytes)
      const result = vcpu.ask(access.get, into)
      if (result < 0) return { part, result }
      bytes[part] = into
    }
    const msrs = this.readMsrs(vcpu)
    if (typeof msrs === "number") return { part: "msrs", result: msrs }
    const tsc = readMsrs(vcpu, [TSC])
    if (typeof tsc === "number") return { part: "tsc", result: tsc }
    const { activity, debug, events, general, localApic, special, xcrs, xsave } = bytes
    return {
      special: special!,
      general: general!,
      xsave: xsave!,
      xcrs,
      debug: debug!,
      localApic,
      msrs,
      tsc: tsc[0]?.data,
      activity: activity!,
      events: events!
    }
  }

  /** Writes all parts, up to the first that is refused. The vCPU must not run, nor stand inside an instruction. */
  write(vcpu: VcpuFile, state: RawState): Refusal | undefined {
    return this.writeParts(vcpu, state, BEFORE_MSRS) ?? this.writeMsrs(vcpu, state) ??
      this.writeParts(vcpu, state, AFTER_MSRS)
  }

  private writeParts(vcpu: VcpuFile, state: RawState, parts: ReadonlyArray<Access["part"]>): Refusal | undefined {
    for (const part of parts) {
      const access = this.accesses.get(part)
      const bytes = state[part]
      if (access === undefined || bytes === undefined) continue
      const result = vcpu.ask(access.set, bytes)
      if (result < 0) return { part, result }
      if (part === "special") setTaskPriority(vcpu, Result.getOrThrow(Sregs.decode(bytes)).cr8)
    }
    return undefined
  }

  /** Only what differs: some registers refuse any write, also of what they hold. */
  private writeMsrs(vcpu: VcpuFile, { msrs, tsc }: RawState): Refusal | undefined {
    const before = this.readMsrs(vcpu)
    if (typeof before === "number") return { part: "msrs", result: before }
    const held = new Map(before.map(({ data, index }) => [index, data]))
    const changed = msrs.filter(({ data, index }) => held.get(index) !== data)
    // A deadline is told from the counter as it will be.
    const entries = tsc === undefined ? changed : [{ index: TSC, data: tsc }, ...changed]
    const refusal = writeMsrs(vcpu, entries)
    return refusal === undefined ? undefined : { part: refusal.msr?.index === TSC ? "tsc" : "msrs", ...refusal }
  }

  private readMsrs(vcpu: VcpuFile): ReadonlyArray<MsrEntry> | number {
    const entries = readMsrs(vcpu, this.indices)
    if (typeof entries !== "number" && entries.length < this.indices.length) {
      this.indices = entries.map(({ index }) => index)
    }
    return entries
  }
}
