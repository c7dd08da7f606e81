/**
 * A vCPU's model-specific registers: which there are, and reading and writing many at once.
 */
import * as Result from "effect/Result"
import { Errno } from "../../../domain/Errno.ts"
import type { Libc } from "../../native/Libc.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import { type MsrEntry, MsrList, Msrs } from "../abi/Msr.ts"
import type { KvmSystem } from "../KvmSystem.ts"
import type { VcpuFile } from "../VcpuFile.ts"

/** IA32_TIME_STAMP_COUNTER, which runs on and so is no part of what is compared. */
export const TSC = 0x10

/** What became of a list of registers. */
export interface MsrRefusal {
  readonly result: number
  /** The one that was refused; `undefined` when the kernel refused to look at the list. */
  readonly msr: MsrEntry | undefined
}

// MAX_IO_MSRS of Linux's arch/x86/kvm/x86.c is 256, and a list must be shorter.
const MOST_AT_ONCE = 128

// Synthetic registers of other hypervisors, which no guest of ours is told of: asking for one makes KVM keep state.
const isForeign = (index: number): boolean => index >= 0x4000_0000 && index < 0x4000_0200

const range = (first: number, count: number, step = 1): ReadonlyArray<number> =>
  Array.from({ length: count }, (_, at) => first + at * step)

/**
 * Those that guests can change and KVM's list does not name on all kernels: TSC_AUX, the memory type ranges (Intel SDM
 * volume 3, table 12-3), and the banks of machine checks.
 */
const unlisted = (machineCheckBanks: number): ReadonlyArray<number> => [
  0xc000_0103,
  0x2ff,
  0x250,
  0x258,
  0x259,
  ...range(0x268, 8),
  ...range(0x200, 16),
  ...range(0x400, machineCheckBanks * 4)
]

/** The numbers that KVM lists, and some that it does not. */
export const msrIndices = (libc: Libc, system: KvmSystem): ReadonlyArray<number> | number => {
  const counted = MsrList.room(0)
  libc.ioctlAt(system.fd, KvmIoctl.GET_MSR_INDEX_LIST, counted)
  const bytes = MsrList.room(new DataView(counted.buffer).getUint32(0, true))
  const result = libc.ioctlAt(system.fd, KvmIoctl.GET_MSR_INDEX_LIST, bytes)
  if (result < 0) return result
  const all = [...Result.getOrThrow(MsrList.decode(bytes)), ...unlisted(system.extension("MCE"))]
  return [...new Set(all)].filter((index) => index !== TSC && !isForeign(index))
}

/** Those of these registers that this vCPU has, or a negative errno. */
export const readMsrs = (vcpu: VcpuFile, indices: ReadonlyArray<number>): ReadonlyArray<MsrEntry> | number => {
  const found: Array<MsrEntry> = []
  for (let at = 0; at < indices.length;) {
    const asked = indices.slice(at, at + MOST_AT_ONCE)
    const bytes = Result.getOrThrow(Msrs.encode(asked.map((index) => ({ index, data: 0n }))))
    const count = vcpu.ask(KvmIoctl.GET_MSRS, bytes)
    if (count < 0) return count
    found.push(...Result.getOrThrow(Msrs.decode(bytes)).slice(0, count))
    // The next one is what it could not read.
    at += count < asked.length ? count + 1 : count
  }
  return found
}

/** Writes these registers in this order, up to the first that is refused. */
export const writeMsrs = (vcpu: VcpuFile, entries: ReadonlyArray<MsrEntry>): MsrRefusal | undefined => {
  for (let at = 0; at < entries.length; at += MOST_AT_ONCE) {
    const given = entries.slice(at, at + MOST_AT_ONCE)
    const count = vcpu.ask(KvmIoctl.SET_MSRS, Result.getOrThrow(Msrs.encode(given)))
    if (count < 0) return { result: count, msr: undefined }
    // The kernel tells how far it came, not why it stopped.
    if (count < given.length) return { result: -Errno.EINVAL, msr: given[count] }
  }
  return undefined
}
