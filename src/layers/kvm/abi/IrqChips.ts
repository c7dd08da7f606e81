/**
 * The chips that KVM emulates in the kernel, in `<linux/kvm.h>` and x86's `<asm/kvm.h>`: two 8259s, an I/O APIC and an
 * 8254.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import { i64, u64s, u8 } from "./KvmField.ts"

/** `struct kvm_pic_state`: one 8259. */
export const PicState = Layout.struct("kvm_pic_state", {
  lastIrr: u8("last_irr"),
  irr: u8("irr"),
  imr: u8("imr"),
  isr: u8("isr"),
  priorityAdd: u8("priority_add"),
  irqBase: u8("irq_base"),
  readRegSelect: u8("read_reg_select"),
  poll: u8("poll"),
  specialMask: u8("special_mask"),
  initState: u8("init_state"),
  autoEoi: u8("auto_eoi"),
  rotateOnAutoEoi: u8("rotate_on_auto_eoi"),
  specialFullyNestedMode: u8("special_fully_nested_mode"),
  init4: u8("init4"),
  elcr: u8("elcr"),
  elcrMask: u8("elcr_mask")
})

/** The pins of the I/O APIC: KVM_IOAPIC_NUM_PINS. */
export const IOAPIC_PINS = 24

/** `struct kvm_ioapic_state`; `redirtbl` holds the redirection entries as the chip has them. */
export const IoapicState = Layout.struct("kvm_ioapic_state", {
  baseAddress: Field.u64("base_address"),
  ioregsel: Field.u32("ioregsel"),
  id: Field.u32("id"),
  irr: Field.u32("irr"),
  pad: Field.reserved("pad", Field.u32),
  redirtbl: u64s("redirtbl", IOAPIC_PINS)
})

/** `struct kvm_irqchip`: `chipId` is an `IrqChipId`, which tells what `chip` holds. */
export const IrqChip = Layout.struct("kvm_irqchip", {
  chipId: Field.u32("chip_id"),
  pad: Field.reserved("pad", Field.u32),
  chip: Field.union("chip", 512, { pic: PicState, ioapic: IoapicState })
})

/** `KVM_IRQCHIP_*`. */
export const IrqChipId = { PIC_MASTER: 0, PIC_SLAVE: 1, IOAPIC: 2 } as const

/** `struct kvm_pit_config`: `flags` holds a `PitConfigFlag`. */
export const PitConfig = Layout.struct("kvm_pit_config", {
  flags: Field.u32("flags"),
  pad: Field.reserved("pad", Field.u32, 15)
})

/** `KVM_PIT_*`: answer the speaker's port 0x61 too. */
export const PitConfigFlag = { SPEAKER_DUMMY: 0x1 } as const

/** `struct kvm_pit_channel_state`. `count` may be 65536; `countLoadTime` is in ns of the host's monotonic clock. */
export const PitChannelState = Layout.struct("kvm_pit_channel_state", {
  count: Field.u32("count"),
  latchedCount: Field.u16("latched_count"),
  countLatched: u8("count_latched"),
  statusLatched: u8("status_latched"),
  status: u8("status"),
  readState: u8("read_state"),
  writeState: u8("write_state"),
  writeLatch: u8("write_latch"),
  rwMode: u8("rw_mode"),
  mode: u8("mode"),
  bcd: u8("bcd"),
  gate: u8("gate"),
  countLoadTime: i64("count_load_time")
})

/** `struct kvm_pit_state2`: `flags` holds `PitStateFlag` bits. */
export const PitState2 = Layout.struct("kvm_pit_state2", {
  channels: Layout.array("channels", PitChannelState, 3),
  flags: Field.u32("flags"),
  reserved: Field.reserved("reserved", Field.u32, 9)
})

/** `KVM_PIT_FLAGS_*`. */
export const PitStateFlag = { HPET_LEGACY: 0x1, SPEAKER_DATA_ON: 0x2 } as const
