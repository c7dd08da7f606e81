/**
 * A VM's paravirtual clock in `<linux/kvm.h>`.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"

/** `struct kvm_clock_data`: `clock` in ns; `realtime` and `hostTsc` count only with their `ClockFlag`. */
export const ClockData = Layout.struct("kvm_clock_data", {
  clock: Field.u64("clock"),
  flags: Field.u32("flags"),
  pad0: Field.reserved("pad0", Field.u32),
  realtime: Field.u64("realtime"),
  hostTsc: Field.u64("host_tsc"),
  pad: Field.reserved("pad", Field.u32, 4)
})

export type ClockData = Layout.Value<typeof ClockData>

/** `KVM_CLOCK_*`. */
export const ClockFlag = { TSC_STABLE: 0x2, REALTIME: 0x4, HOST_TSC: 0x8 } as const
