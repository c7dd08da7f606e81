/**
 * The chips that the kernel emulates for a whole VM: two 8259s, an I/O APIC, an 8254.
 */
import * as Result from "effect/Result"
import { IrqChip, IrqChipId, PitState2 } from "../abi/IrqChips.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import type { VmFile } from "../VmFile.ts"

export interface Chip {
  /** The request that writes it back. */
  readonly set: number
  readonly bytes: Uint8Array
}

const noChip = new Uint8Array(IrqChip.size - IrqChip.offsets.chip)

const asked = (): ReadonlyArray<readonly [get: number, Chip]> => [
  ...Object.values(IrqChipId).map((chipId) =>
    [
      KvmIoctl.GET_IRQCHIP,
      { set: KvmIoctl.SET_IRQCHIP, bytes: Result.getOrThrow(IrqChip.encode({ chipId, chip: noChip })) }
    ] as const
  ),
  [KvmIoctl.GET_PIT2, { set: KvmIoctl.SET_PIT2, bytes: new Uint8Array(PitState2.size) }]
]

/** Those that the VM has. */
export const readChips = (vm: VmFile): ReadonlyArray<Chip> =>
  asked().filter(([get, { bytes }]) => vm.ask(get, bytes) >= 0).map(([, chip]) => chip)

export const writeChips = (vm: VmFile, chips: ReadonlyArray<Chip>): void => {
  for (const { bytes, set } of chips) vm.ask(set, bytes)
}
