/**
 * Where the lines and messages of a VM with in-kernel interrupt controllers go, in `<linux/kvm.h>`: a table from GSI to
 * a chip's pin or to a message.
 */
import * as Field from "../../../domain/abi/Field.ts"
import * as Layout from "../../../domain/abi/Layout.ts"
import * as CountedList from "./CountedList.ts"

/** `struct kvm_irq_routing_irqchip`: `irqchip` is an `IrqChipId`. */
export const IrqRoutingIrqChip = Layout.struct("kvm_irq_routing_irqchip", {
  irqchip: Field.u32("irqchip"),
  pin: Field.u32("pin")
})

/** `struct kvm_irq_routing_msi`. */
export const IrqRoutingMsi = Layout.struct("kvm_irq_routing_msi", {
  addressLo: Field.u32("address_lo"),
  addressHi: Field.u32("address_hi"),
  data: Field.u32("data"),
  devid: Field.u32("devid")
})

/** `struct kvm_irq_routing_entry`: `type` is an `IrqRoutingType`, which tells what the first bytes of `u` hold. */
export const IrqRoutingEntry = Layout.struct("kvm_irq_routing_entry", {
  gsi: Field.u32("gsi"),
  type: Field.u32("type"),
  flags: Field.u32("flags"),
  pad: Field.reserved("pad", Field.u32),
  u: Field.union("u", 32, { irqchip: IrqRoutingIrqChip, msi: IrqRoutingMsi })
  // For the 64-bit words of an alternative of another machine.
}, { align: 8 })

/** `KVM_IRQ_ROUTING_*`, those that Upcall uses. */
export const IrqRoutingType = { IRQCHIP: 1, MSI: 2 } as const

/** `struct kvm_irq_routing`; no flags are defined. */
export const IrqRoutingHeader = Layout.struct("kvm_irq_routing", {
  nr: Field.u32("nr"),
  flags: Field.u32("flags"),
  entries: Field.tail("entries", IrqRoutingEntry)
})

/** What SET_GSI_ROUTING takes: the whole table; it replaces the one before. */
export const IrqRouting = CountedList.make(IrqRoutingHeader, Layout.nested("entries", IrqRoutingEntry))
