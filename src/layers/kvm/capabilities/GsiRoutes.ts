/**
 * The routing table of one VM: the lines of the chips as the kernel begins with them, and above them a line for each
 * message. The kernel takes the table as a whole, so all of it is told again with every change.
 */
import * as Result from "effect/Result"
import { Errno } from "../../../domain/Errno.ts"
import { IOAPIC_PINS, IrqChipId } from "../abi/IrqChips.ts"
import { IrqRouting, IrqRoutingEntry, IrqRoutingIrqChip, IrqRoutingMsi, IrqRoutingType } from "../abi/IrqRouting.ts"

export interface MessageFields {
  readonly addressLo: number
  readonly addressHi: number
  readonly data: number
}

type Entry = Parameters<typeof IrqRoutingEntry.encode>[0]

const ALTERNATIVE_BYTES = IrqRoutingEntry.size - IrqRoutingEntry.offsets.u
const PIC_LINES = 16
const PIC_PINS = 8

const alternative = (bytes: Uint8Array): Uint8Array => {
  const whole = new Uint8Array(ALTERNATIVE_BYTES)
  whole.set(bytes)
  return whole
}

const pin = (gsi: number, irqchip: number, number: number): Entry => ({
  gsi,
  type: IrqRoutingType.IRQCHIP,
  flags: 0,
  u: alternative(Result.getOrThrow(IrqRoutingIrqChip.encode({ irqchip, pin: number })))
})

const message = (gsi: number, fields: MessageFields): Entry => ({
  gsi,
  type: IrqRoutingType.MSI,
  flags: 0,
  u: alternative(Result.getOrThrow(IrqRoutingMsi.encode({ ...fields, devid: 0 })))
})

/** Each line to the pin of its number of the I/O APIC, and the first 16 to the 8259s as well. */
const chips: ReadonlyArray<Entry> = Array.from({ length: IOAPIC_PINS }, (_, gsi) => {
  const ioApic = pin(gsi, IrqChipId.IOAPIC, gsi)
  if (gsi >= PIC_LINES) return [ioApic]
  const pic = gsi < PIC_PINS ? IrqChipId.PIC_MASTER : IrqChipId.PIC_SLAVE
  return [ioApic, pin(gsi, pic, gsi % PIC_PINS)]
}).flat()

export class GsiRoutes {
  private readonly messages = new Map<number, MessageFields>()
  private readonly setTable: (table: Uint8Array) => number
  private readonly mostRoutes: number

  /** `setTable` gives the kernel a table: 0, or a negative errno. `mostRoutes` is how many entries it takes. */
  constructor(setTable: (table: Uint8Array) => number, mostRoutes: number) {
    this.setTable = setTable
    this.mostRoutes = mostRoutes
  }

  /** A line that sends this message, or a negative errno and nothing changed. */
  add(fields: MessageFields): number {
    const gsi = this.freeLine()
    if (gsi === undefined) return -Errno.ENOMEM
    this.messages.set(gsi, fields)
    const result = this.tell()
    if (result >= 0) return gsi
    this.messages.delete(gsi)
    return result
  }

  remove(gsi: number): void {
    this.messages.delete(gsi)
    this.tell()
  }

  private freeLine(): number | undefined {
    const end = IOAPIC_PINS + this.mostRoutes - chips.length
    for (let gsi = IOAPIC_PINS; gsi < end; gsi++) {
      if (!this.messages.has(gsi)) return gsi
    }
    return undefined
  }

  private tell(): number {
    const entries = [...chips, ...Array.from(this.messages, ([gsi, fields]) => message(gsi, fields))]
    return this.setTable(Result.getOrThrow(IrqRouting.encode(entries)))
  }
}
