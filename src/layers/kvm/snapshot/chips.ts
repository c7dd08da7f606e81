/**
 * The chips that the kernel emulates for a whole VM: two 8259s, an I/O APIC, an 8254.
 */
import * as Result from "effect/Result"
import { Errno } from "../../../domain/Errno.ts"
import { IrqChip, IrqChipId, PitState2 } from "../abi/IrqChips.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import type { VmFile } from "../VmFile.ts"
import type { Refusal } from "./RawState.ts"

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

/** Those that the VM has, or why KVM did not let one be read. */
export const readChips = (vm: VmFile): ReadonlyArray<Chip> | Refusal => {
  const chips: Array<Chip> = []
  for (const [get, chip] of asked()) {
    const result = vm.ask(get, chip.bytes)
    if (result >= 0) chips.push(chip)
    // What a chip is answered with that the VM does not have.
    else if (result !== -Errno.ENXIO) return { part: "chips", result }
  }
  return chips
}

export const writeChips = (vm: VmFile, chips: ReadonlyArray<Chip>): Refusal | undefined => {
  for (const { bytes, set } of chips) {
    const result = vm.ask(set, bytes)
    if (result < 0) return { part: "chips", result }
  }
  return undefined
}
