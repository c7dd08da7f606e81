/**
 * What the layer itself reads and sets of a vCPU that does not run: its registers, and whether it runs or halts.
 */
import * as Result from "effect/Result"
import type { Fields, Layout, ValueOf } from "../../domain/abi/Layout.ts"
import type { Regs as AcrnRegs } from "../../domain/abi/VcpuRegs.ts"
import { KvmIoctl } from "./abi/KvmIoctl.ts"
import { CR8_OFFSET } from "./abi/KvmRun.ts"
import { Regs, Sregs } from "./abi/Registers.ts"
import { MpState } from "./abi/VcpuEvents.ts"
import { acrnRegsOf, generalOf, specialOf } from "./registers.ts"
import type { VcpuFile } from "./VcpuFile.ts"

/** A structure that the kernel fills in, or a negative errno. */
const get = <F extends Fields>(vcpu: VcpuFile, request: number, layout: Layout<F>): ValueOf<F> | number => {
  const bytes = new Uint8Array(layout.size)
  const result = vcpu.ask(request, bytes)
  return result < 0 ? result : Result.getOrThrow(layout.decode(bytes))
}

/** Gives the kernel a structure: 0, or a negative errno. */
const set = <F extends Fields>(vcpu: VcpuFile, request: number, layout: Layout<F>, value: ValueOf<F>): number =>
  vcpu.ask(request, Result.getOrThrow(layout.encode(value)))

/** Makes the vCPU start with these registers: 0, or a negative errno and nothing changed. */
export const setRegisters = (vcpu: VcpuFile, registers: AcrnRegs): number => {
  const before = get(vcpu, KvmIoctl.GET_SREGS, Sregs)
  if (typeof before === "number") return before
  const special = specialOf(registers, before)
  const result = set(vcpu, KvmIoctl.SET_SREGS, Sregs, special)
  if (result < 0) return result
  setTaskPriority(vcpu, special.cr8)
  return set(vcpu, KvmIoctl.SET_REGS, Regs, generalOf(registers))
}

const APIC_GLOBAL_ENABLE = 1n << 11n

/** Says in IA32_APIC_BASE, and so in CPUID, that there is no local APIC: 0, or a negative errno. */
export const disableLocalApic = (vcpu: VcpuFile): number => {
  const before = get(vcpu, KvmIoctl.GET_SREGS, Sregs)
  if (typeof before === "number") return before
  return set(vcpu, KvmIoctl.SET_SREGS, Sregs, { ...before, apicBase: before.apicBase & ~APIC_GLOBAL_ENABLE })
}

/** Without the kernel's local APIC each KVM_RUN takes CR8 from here, whatever the special registers say. */
export const setTaskPriority = (vcpu: VcpuFile, cr8: bigint): void => {
  vcpu.words[CR8_OFFSET / 4] = Number(cr8 & 0xfn)
  vcpu.words[CR8_OFFSET / 4 + 1] = 0
}

export const getRegisters = (vcpu: VcpuFile): AcrnRegs | undefined => {
  const general = get(vcpu, KvmIoctl.GET_REGS, Regs)
  const special = get(vcpu, KvmIoctl.GET_SREGS, Sregs)
  return typeof general === "number" || typeof special === "number" ? undefined : acrnRegsOf(general, special)
}

/** A `MpStateCode`, or a negative errno. */
export const getMpState = (vcpu: VcpuFile): number => {
  const state = get(vcpu, KvmIoctl.GET_MP_STATE, MpState)
  return typeof state === "number" ? state : state.mpState
}

export const setMpState = (vcpu: VcpuFile, mpState: number): number =>
  set(vcpu, KvmIoctl.SET_MP_STATE, MpState, { mpState })

const INTERRUPTS_ENABLED = 1n << 9n

/** Whether the vCPU takes interrupts. */
export const isInterruptible = (vcpu: VcpuFile): boolean => {
  const general = get(vcpu, KvmIoctl.GET_REGS, Regs)
  return typeof general === "number" || (general.rflags & INTERRUPTS_ENABLED) !== 0n
}
