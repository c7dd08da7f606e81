/**
 * PCI configuration mechanism 1: the address register at port 0xCF8 and the data window at 0xCFC to 0xCFF, folded into
 * PCI requests.
 *
 * Facts: PCI Local Bus Specification 3.0, 3.2.2.3.2; Linux `drivers/virt/acrn/ioreq.c` (`handle_cf8cfc`). Only a 4-byte
 * access to 0xCF8 is the address register; any other size there is plain port I/O (0xCF9 is a chipset's reset port).
 */
import type { IoRequest, PortRead, PortWrite } from "../../domain/IoRequest.ts"

const ADDRESS_PORT = 0xcf8
const DATA_PORT = 0xcfc
const DATA_PORT_LAST = 0xcff
const ENABLE = 0x8000_0000
const ALL_ONES = 0xffff_ffff

export class ConfigAddress {
  private latch = 0

  reset(): void {
    this.latch = 0
  }

  /** The request to route, or a number: the answer that needs no client. */
  fold(request: PortRead | PortWrite): IoRequest | number {
    const { port, size } = request
    if (port < ADDRESS_PORT || port > DATA_PORT_LAST) return request
    if (port === ADDRESS_PORT && size === 4) {
      if (request._tag === "PortRead") return this.latch
      this.latch = request.value
      return 0
    }
    // Words that run over the end of the dword they begin in are no configuration access.
    if (port < DATA_PORT || port - DATA_PORT + size > 4) return request
    const latch = this.latch
    if ((latch & ENABLE) === 0) return ALL_ONES
    const target = {
      vcpu: request.vcpu,
      bus: latch >>> 16 & 0xff,
      device: latch >>> 11 & 0x1f,
      function: latch >>> 8 & 0x7,
      register: (latch & 0xfc) + (latch >>> 16 & 0xf00) + (port - DATA_PORT),
      size
    }
    return request._tag === "PortRead"
      ? { _tag: "PciRead", ...target }
      : { _tag: "PciWrite", ...target, value: request.value }
  }
}
