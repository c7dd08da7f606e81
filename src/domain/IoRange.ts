/**
 * Ranges of the three spaces that guests reach devices through: ports, memory-mapped I/O, PCI configuration.
 *
 * A range holds an access only when it holds every byte of it, in all three spaces alike.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { GuestAddress, hex, Port } from "./Address.ts"

const ascending = Schema.makeFilter((range: { readonly start: number; readonly end: number }) =>
  range.end >= range.start || `a range's end (${hex(range.end)}) must not lie before its start (${hex(range.start)})`
)

/**
 * Ports `start` to `end`, both inclusive.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PortRange = Schema.TaggedStruct("Port", { start: Port, end: Port }).check(ascending)

/**
 * Guest physical addresses `start` to `end`, both inclusive.
 *
 * @category schemas
 * @since 0.1.0
 */
export const MmioRange = Schema.TaggedStruct("Mmio", { start: GuestAddress, end: GuestAddress }).check(ascending)

const bounded = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

/**
 * The configuration space of one PCI function: bus 0 to 255, device 0 to 31, function 0 to 7.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PciFunctionRange = Schema.TaggedStruct("PciFunction", {
  bus: bounded(255),
  device: bounded(31),
  function: bounded(7)
})

/**
 * The configuration space of every function of every bus that no {@link PciFunctionRange} claims.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PciAnyRange = Schema.TaggedStruct("PciAny", {})

/**
 * @category schemas
 * @since 0.1.0
 */
export const IoRange = Schema.Union([PortRange, MmioRange, PciFunctionRange, PciAnyRange]).pipe(
  Schema.toTaggedUnion("_tag")
)

/**
 * @category models
 * @since 0.1.0
 */
export type IoRange = typeof IoRange.Type

// Not `make`: its exception does not say what was wrong.
const portRange = Schema.decodeUnknownSync(PortRange)
const mmioRange = Schema.decodeUnknownSync(MmioRange)
const pciFunctionRange = Schema.decodeUnknownSync(PciFunctionRange)

/**
 * Ports `start` to `end`, both inclusive; throws a `SchemaError` when they are not ports or out of order.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ports = (start: number, end: number): IoRange => portRange({ _tag: "Port", start, end })

/**
 * Guest physical addresses `start` to `end`, both inclusive; throws a `SchemaError` when they are not addresses or
 * out of order.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mmio = (start: number, end: number): IoRange => mmioRange({ _tag: "Mmio", start, end })

/**
 * One PCI function's configuration space; throws a `SchemaError` when there is no such function.
 *
 * @category constructors
 * @since 0.1.0
 */
export const pciFunction = (bus: number, device: number, fn: number): IoRange =>
  pciFunctionRange({ _tag: "PciFunction", bus, device, function: fn })

/**
 * All of PCI configuration space that nobody claims more narrowly.
 *
 * @category constructors
 * @since 0.1.0
 */
export const pciAny: IoRange = PciAnyRange.make({})

/**
 * Tells whether two ranges own one address of one space. A {@link PciAnyRange} overlaps only another one: a narrower
 * claim takes precedence over it.
 *
 * @category predicates
 * @since 0.1.0
 */
export const overlaps = (a: IoRange, b: IoRange): boolean => {
  switch (a._tag) {
    case "Port":
    case "Mmio":
      return b._tag === a._tag && a.start <= b.end && b.start <= a.end
    case "PciFunction":
      return b._tag === "PciFunction" && a.bus === b.bus && a.device === b.device && a.function === b.function
    case "PciAny":
      return b._tag === "PciAny"
  }
}

/**
 * A range as messages show it: `ports 0x3f8-0x3ff`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (range: IoRange): string => {
  switch (range._tag) {
    case "Port":
      return `ports ${hex(range.start)}-${hex(range.end)}`
    case "Mmio":
      return `MMIO ${hex(range.start)}-${hex(range.end)}`
    case "PciFunction":
      return `PCI ${range.bus}:${range.device}.${range.function}`
    case "PciAny":
      return "PCI (any function)"
  }
}
