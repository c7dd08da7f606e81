/** Requests that lie where a world's clients are: in their ranges, over their edges, and in the gaps between them. */
import type { GuestAddress, Port, VcpuId } from "../../domain/Address.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import { ADDRESS_SPACE_END, PORT_SPACE_END } from "../../domain/Limits.ts"
import * as Generator from "../Generator.ts"
import { FUNCTIONS, type Places, WINDOW_LENGTH } from "./World.ts"

interface Draft {
  readonly space: "Port" | "Mmio" | "Pci"
  readonly vcpu: number
  readonly offset: number
  readonly size: 1 | 2 | 4 | 8
  readonly value: bigint | undefined
  readonly function: (typeof FUNCTIONS)[number]
  readonly dword: number
}

// A little more than a window on both sides.
const BEYOND = 4

/** Drafts for any places, for a generator of its own for each place would be dear. */
export const drafts = (vcpus: number): Generator.Generator<Draft> =>
  Generator.all({
    space: Generator.elementOf(["Port", "Mmio", "Pci"] as const),
    vcpu: Generator.integer(0, vcpus - 1),
    offset: Generator.integer(-BEYOND, WINDOW_LENGTH - 1 + BEYOND),
    size: Generator.elementOf([1, 2, 4, 8] as const),
    value: Generator.oneOf<bigint | undefined>(Generator.constant(undefined), Generator.bits(64)),
    function: Generator.elementOf(FUNCTIONS),
    dword: Generator.integer(0, 3)
  })

/** The request that a draft is at a place: one that can be made. */
export const requestAt = (places: Places, draft: Draft): IoRequest => {
  const { dword, function: fn, offset, space, value } = draft
  const vcpu = draft.vcpu as VcpuId
  const narrow = draft.size === 8 ? 4 : draft.size
  const cut = (bytes: number) => BigInt.asUintN(8 * bytes, value ?? 0n)
  const inside = (address: number, size: number, end: number) => Math.min(Math.max(0, address), end - size)
  switch (space) {
    case "Port": {
      const at = { vcpu, port: inside(places.ports + offset, narrow, PORT_SPACE_END) as Port, size: narrow } as const
      return value === undefined
        ? { _tag: "PortRead", ...at }
        : { _tag: "PortWrite", ...at, value: Number(cut(narrow)) }
    }
    case "Mmio": {
      const { size } = draft
      const at = { vcpu, address: inside(places.mmio + offset, size, ADDRESS_SPACE_END) as GuestAddress, size } as const
      return value === undefined ? { _tag: "MmioRead", ...at } : { _tag: "MmioWrite", ...at, value: cut(size) }
    }
    case "Pci": {
      const piece = (offset + BEYOND) % (4 / narrow)
      const at = { vcpu, ...fn, register: 4 * dword + piece * narrow, size: narrow } as const
      return value === undefined
        ? { _tag: "PciRead", ...at }
        : { _tag: "PciWrite", ...at, value: Number(cut(narrow)) }
    }
  }
}
