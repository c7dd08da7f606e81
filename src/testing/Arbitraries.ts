/**
 * Generators for property tests: ports, ranges, requests, VM options, registers, images and guest programs that a given
 * hypervisor can take. They shrink, go straight into `it.prop` and `it.effect.prop` of `@effect/vitest`, and are
 * combined with `Generator`.
 *
 * **Example** (A property of every request that Simulated can pass on)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Arbitraries from "upcall/testing/Arbitraries"
 * import * as Generator from "upcall/testing/Generator"
 * import { profile } from "upcall/testing/TestMachine"
 *
 * const property = Generator.check(
 *   Arbitraries.ioRequest(profile),
 *   (request) => request.size <= 8,
 *   { runs: 200, seed: 1 }
 * )
 * console.log((await Effect.runPromise(property))._tag)
 * // => Passed
 * ```
 *
 * @since 0.1.0
 */
import { GuestAddress, Port } from "../domain/Address.ts"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { ImagePlan } from "../domain/ImagePlan.ts"
import * as IoRange from "../domain/IoRange.ts"
import { IoRequest } from "../domain/IoRequest.ts"
import { PAGE_BYTES, PORT_SPACE_END } from "../domain/Limits.ts"
import * as VcpuRegisters from "../domain/VcpuRegisters.ts"
import type { VmOptions } from "../services/Vm.ts"
import {
  all,
  array,
  bits,
  boolean,
  constant,
  elementOf,
  flatMap,
  type Generator,
  integer,
  map,
  oneOf,
  schema
} from "./Generator.ts"
import type { Mode, Operation } from "./GuestProgram.ts"

/**
 * Ports, 0 to 0xFFFF.
 *
 * @category generators
 * @since 0.1.0
 */
export const port: Generator<Port> = schema(Port)

/**
 * Guest physical addresses of whole accesses: the last of `size` bytes lies below the end of the profile's addresses.
 *
 * @category generators
 * @since 0.1.0
 */
export const guestAddress = (profile: HypervisorProfile, size = 1): Generator<GuestAddress> =>
  map(integer(0, 2 ** profile.addressBits - size), (address) => GuestAddress.make(address))

const pciFunction = all({ bus: integer(0, 255), device: integer(0, 31), function: integer(0, 7) })

/** Registers of PCI functions with accesses that do not leave their dword. */
const pciAccess = (widths: ReadonlyArray<1 | 2 | 4>) =>
  flatMap(elementOf(widths), (size) =>
    map(
      all({ at: pciFunction, dword: integer(0, 0x3ff), piece: integer(0, 4 / size - 1) }),
      ({ at, dword, piece }) => ({ ...at, register: dword * 4 + piece * size, size })
    ))

const span = (start: Generator<number>, maxLength: number, end: number): Generator<readonly [number, number]> =>
  map(
    all([start, integer(1, maxLength)]),
    ([first, length]) => [first, Math.min(first + length, end) - 1] as const
  )

/**
 * Ranges of any space: up to 64 ports, up to 64 KiB of MMIO, a PCI function, or the rest of PCI.
 *
 * @category generators
 * @since 0.1.0
 */
export const ioRange = (profile: HypervisorProfile): Generator<IoRange.IoRange> =>
  oneOf<IoRange.IoRange>(
    map(span(port, 64, PORT_SPACE_END), ([start, end]) => IoRange.ports(start, end)),
    map(
      span(guestAddress(profile), 0x1_0000, 2 ** profile.addressBits),
      ([start, end]) => IoRange.mmio(start, end)
    ),
    map(pciFunction, (at) => IoRange.pciFunction(at.bus, at.device, at.function)),
    constant(IoRange.pciAny)
  )

/**
 * Ranges of which no two own the same address, as the clients of one dispatcher have them.
 *
 * @category generators
 * @since 0.1.0
 */
export const disjointRanges = (
  profile: HypervisorProfile,
  options: { readonly maxLength?: number } = {}
): Generator<ReadonlyArray<IoRange.IoRange>> =>
  map(
    array(ioRange(profile), { maxLength: options.maxLength ?? 8 }),
    (ranges) => ranges.filter((range, index) => !ranges.slice(0, index).some((other) => IoRange.overlaps(other, range)))
  )

/** With or without a value of `size` bytes: a write or a read. */
const access = <A extends { readonly size: number }, R>(
  place: Generator<A>,
  read: (place: A) => R,
  write: (place: A, value: bigint) => R
): Generator<R> =>
  flatMap(
    place,
    (at) => oneOf(constant(read(at)), map(bits(8 * at.size), (value) => write(at, value)))
  )

const vcpuOf = (profile: HypervisorProfile) => integer(0, profile.maxVcpus - 1)

/**
 * Port requests that a guest of this hypervisor can make.
 *
 * @category generators
 * @since 0.1.0
 */
export const portRequest = (profile: HypervisorProfile): Generator<IoRequest> =>
  access(
    flatMap(elementOf(profile.portWidths), (size) =>
      all({
        vcpu: vcpuOf(profile),
        port: integer(0, PORT_SPACE_END - size),
        size: constant(size)
      })),
    (at): IoRequest => IoRequest.cases.PortRead.make(brand(at)),
    (at, value) => IoRequest.cases.PortWrite.make({ ...brand(at), value: Number(value) })
  )

/**
 * MMIO requests that a guest of this hypervisor can make, at any alignment.
 *
 * @category generators
 * @since 0.1.0
 */
export const mmioRequest = (profile: HypervisorProfile): Generator<IoRequest> =>
  access(
    flatMap(elementOf(profile.mmioWidths), (size) =>
      all({
        vcpu: vcpuOf(profile),
        address: guestAddress(profile, size),
        size: constant(size)
      })),
    (at): IoRequest => IoRequest.cases.MmioRead.make(brand(at)),
    (at, value) => IoRequest.cases.MmioWrite.make({ ...brand(at), value })
  )

/**
 * PCI configuration requests: accesses that do not leave their dword.
 *
 * @category generators
 * @since 0.1.0
 */
export const pciRequest = (profile: HypervisorProfile): Generator<IoRequest> =>
  access(
    map(
      all({ vcpu: vcpuOf(profile), at: pciAccess(profile.portWidths) }),
      ({ at, vcpu }) => ({ vcpu, ...at })
    ),
    (at): IoRequest => IoRequest.cases.PciRead.make(brand(at)),
    (at, value) => IoRequest.cases.PciWrite.make({ ...brand(at), value: Number(value) })
  )

// `make` checks what the brands stand for.
const brand = <A>(at: A) => at as never as Branded<A>
type Branded<A> = { readonly [K in keyof A]: K extends keyof Brands ? Brands[K] : A[K] }
interface Brands {
  readonly vcpu: IoRequest["vcpu"]
  readonly port: Port
  readonly address: GuestAddress
}

/**
 * Requests of all three spaces that a guest of this hypervisor can make: vCPU, widths and addresses are the profile's.
 *
 * @category generators
 * @since 0.1.0
 */
export const ioRequest = (profile: HypervisorProfile): Generator<IoRequest> =>
  oneOf(portRequest(profile), mmioRequest(profile), pciRequest(profile))

/**
 * Options of VMs that this hypervisor can create. `maxMemoryBytes` bounds their RAM (default 1 MiB).
 *
 * @category generators
 * @since 0.1.0
 */
export const vmOptions = (
  profile: HypervisorProfile,
  options: { readonly maxMemoryBytes?: number } = {}
): Generator<VmOptions> => {
  const maxMemoryBytes = Math.min(options.maxMemoryBytes ?? 2 ** 20, profile.maxRamBytes)
  return map(
    all({
      name: integer(0, 0xffff),
      isNamed: boolean,
      vcpus: integer(1, profile.maxVcpus),
      pages: integer(1, Math.floor(maxMemoryBytes / PAGE_BYTES))
    }),
    ({ isNamed, name, pages, vcpus }): VmOptions => ({
      ...isNamed ? { name: `vm-${name.toString(16)}` } : {},
      vcpus,
      memoryBytes: pages * PAGE_BYTES
    })
  )
}

const wordRegisters = all({
  rax: bits(32),
  rcx: bits(32),
  rdx: bits(32),
  rbx: bits(32),
  rbp: bits(32),
  rsi: bits(32),
  rdi: bits(32)
})

/**
 * Registers that a vCPU of this hypervisor can start from, in its real or its flat 32-bit mode. Entry point and stack
 * lie in the first `memoryBytes` of memory (default 64 KiB).
 *
 * @category generators
 * @since 0.1.0
 */
export const vcpuRegisters = (
  profile: HypervisorProfile,
  options: { readonly memoryBytes?: number } = {}
): Generator<VcpuRegisters.VcpuRegisters> => {
  const { memoryBytes = 0x1_0000 } = options
  const inSegment = Math.min(memoryBytes, 0x1_0000) - 1
  const modes = profile.modes.flatMap((mode) => {
    switch (mode) {
      case "Real":
        return [map(
          all({ ip: integer(0, inSegment), sp: integer(0, inSegment), gprs: wordRegisters }),
          (start) => VcpuRegisters.realMode(start)
        )]
      case "Protected32":
        return [map(
          all({
            entry: integer(0, memoryBytes - 1),
            stack: map(integer(0, Math.floor(memoryBytes / 4)), (word) => word * 4),
            gprs: wordRegisters
          }),
          (start) => VcpuRegisters.flat32(start)
        )]
      case "Long64":
        return []
    }
  })
  return oneOf(...modes as [Generator<VcpuRegisters.VcpuRegisters>])
}

/**
 * Bytes, `minBytes` (default 0) to `maxBytes` (default 256) of them.
 *
 * @category generators
 * @since 0.1.0
 */
export const bytes = (
  options: { readonly minBytes?: number; readonly maxBytes?: number } = {}
): Generator<Uint8Array> =>
  map(
    array(integer(0, 0xff), { minLength: options.minBytes ?? 0, maxLength: options.maxBytes ?? 256 }),
    (values) => Uint8Array.from(values)
  )

/**
 * Images of random bytes that fit the memory: to be loaded and read back, not to be run. `memoryBytes` is a multiple of
 * 4096, default 64 KiB.
 *
 * @category generators
 * @since 0.1.0
 */
export const imagePlan = (
  options: { readonly memoryBytes?: number; readonly maxBytes?: number } = {}
): Generator<ImagePlan> => {
  const { maxBytes = 512, memoryBytes = 0x1_0000 } = options
  return flatMap(
    bytes({ minBytes: 1, maxBytes }),
    (image) =>
      map(integer(0, memoryBytes - image.length), (address) =>
        ImagePlan.make({
          memoryBytes,
          segments: [{ name: "image", address: GuestAddress.make(address), bytes: image }],
          registers: VcpuRegisters.flat32({ entry: address, stack: memoryBytes })
        }))
  )
}

/**
 * Where generated guest programs go. `mode`: what they are to be assembled for; in `Long64` there are loads, stores and
 * results of 8 bytes too (default `Protected32`). `profile`: the hypervisor that they are for; accesses are of its
 * widths, as far as code of that mode can make them (default: all of those). `ports`: any of these ports, and so up to
 * three behind them (default 0x40 to 0xFF); the hypervisor's interrupt controllers (0x20, 0x21, 0xA0, 0xA1, 0x4D0,
 * 0x4D1) and 0xCF8 to 0xCFF want to be left out. `mmio`: any of these addresses, below 4 GiB and outside of RAM
 * (default 256 bytes from 0xE0000000). `pci`: whether there are PCI accesses (default true). `maxLength`: operations in
 * a list (default 12), `maxDepth`: loops inside each other (default 2). Ends are inclusive.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestProgramOptions {
  readonly mode?: Mode
  readonly profile?: HypervisorProfile
  readonly ports?: { readonly start: number; readonly end: number }
  readonly mmio?: { readonly start: number; readonly end: number }
  readonly pci?: boolean
  readonly maxLength?: number
  readonly maxDepth?: number
}

/** The ports of a PC's interrupt controllers, where the hypervisor answers by itself. */
const isInterruptController = (at: number, size: number): boolean =>
  [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1].some((own) => at <= own && own < at + size)

const PORT_WIDTHS = [1, 2, 4] as const
const MEMORY_WIDTHS: Readonly<Record<Mode, ReadonlyArray<1 | 2 | 4 | 8>>> = {
  Protected32: [1, 2, 4],
  Long64: [1, 2, 4, 8]
}
const MAX_ROUNDS = 40

/**
 * Operations of guest programs, for `GuestProgram.assemble`: every kind but `Code` and `Halt`, loops of up to 3 rounds.
 *
 * @category generators
 * @since 0.1.0
 */
export const guestProgram = (options: GuestProgramOptions = {}): Generator<ReadonlyArray<Operation>> => {
  const { maxDepth = 2, maxLength = 12, mmio = { start: 0xe000_0000, end: 0xe000_00ff }, pci = true, profile } = options
  const { mode = "Protected32" } = options
  const ports = options.ports ?? { start: 0x40, end: 0xff }
  const portWidths = profile?.portWidths ?? PORT_WIDTHS
  const mmioWidths = MEMORY_WIDTHS[mode].filter((width) => profile?.mmioWidths.includes(width) ?? true)
  const value = bits(32)

  const portAccess = map(
    all({ size: elementOf(portWidths), at: integer(ports.start, ports.end) }),
    (chosen) => ({
      size: chosen.size,
      port: Port.make(isInterruptController(chosen.at, chosen.size) ? ports.start : chosen.at)
    })
  )
  const memoryAccess = flatMap(elementOf(mmioWidths), (bytesWide) =>
    all({
      size: constant(bytesWide),
      address: integer(mmio.start, mmio.end + 1 - bytesWide)
    }))
  const configAccess = pciAccess(portWidths)
  const perhapsValue = oneOf<{ readonly value?: number }>(
    constant({}),
    map(value, (word) => ({ value: Number(word) }))
  )
  const wide: ReadonlyArray<Generator<Operation>> = mode === "Protected32" ? [] : [
    constant({ _tag: "Keep", size: 8 }),
    ...mmioWidths.includes(8)
      ? [map(
        all({ address: integer(mmio.start, mmio.end - 7), value: bits(64) }),
        (at): Operation => ({ _tag: "Store", size: 8, ...at })
      )]
      : []
  ]
  const simple = oneOf<Operation>(
    map(portAccess, (at) => ({ _tag: "PortIn", ...at })),
    map(all([portAccess, perhapsValue]), ([at, given]) => ({ _tag: "PortOut", ...at, ...given })),
    map(all([portAccess, integer(1, 5)]), ([at, count]) => ({ _tag: "StringIn", ...at, count })),
    map(
      flatMap(
        portAccess,
        (at) => all([constant(at), bytes({ minBytes: 1, maxBytes: 5 })])
      ),
      ([at, data]) => ({ _tag: "StringOut", ...at, bytes: repeatEach(data, at.size) })
    ),
    map(memoryAccess, (at) => ({ _tag: "Load", ...at })),
    map(all([memoryAccess, perhapsValue]), ([at, given]) => ({ _tag: "Store", ...at, ...given })),
    constant({ _tag: "Keep" }),
    map(integer(1, MAX_ROUNDS), (rounds) => ({ _tag: "Work", rounds })),
    ...wide,
    ...pci
      ? [
        map(configAccess, (at): Operation => ({ _tag: "PciRead", ...at })),
        map(all([configAccess, perhapsValue]), ([at, given]): Operation => ({ _tag: "PciWrite", ...at, ...given }))
      ]
      : []
  )
  const list = (depth: number): Generator<Array<Operation>> =>
    array(depth === 0 ? simple : oneOf(simple, simple, simple, loop(depth - 1)), { maxLength })
  const loop = (depth: number): Generator<Operation> =>
    map(
      all({ times: integer(1, 3), body: list(depth) }),
      (parts) => ({ _tag: "Loop", ...parts })
    )
  return list(maxDepth)
}

/**
 * As {@link guestProgram}, and `maxVcpus`: how many programs at most (default 4; never more than the profile's vCPUs,
 * and 1 where START runs vCPU 0 alone).
 *
 * @category models
 * @since 0.1.0
 */
export interface GuestProgramsOptions extends Omit<GuestProgramOptions, "profile"> {
  readonly maxVcpus?: number
}

/**
 * Programs for the vCPUs of one VM, 1 or more, for `GuestProgram.assembleAll` on a hypervisor of this profile. One vCPU
 * alone makes PCI accesses: each takes two port accesses, and a VM has one address register at 0xCF8, so that which
 * function a second vCPU reaches would depend on how the two take turns.
 *
 * @category generators
 * @since 0.1.0
 */
export const guestPrograms = (
  profile: HypervisorProfile,
  options: GuestProgramsOptions = {}
): Generator<ReadonlyArray<ReadonlyArray<Operation>>> => {
  const maxVcpus = profile.startsAllVcpus ? Math.min(options.maxVcpus ?? 4, profile.maxVcpus) : 1
  const programs = array(guestProgram({ ...options, profile }), { minLength: 1, maxLength: maxVcpus })
  return map(
    all([integer(0, maxVcpus - 1), programs]),
    ([owner, lists]) => lists.map((list, vcpu) => vcpu === owner % lists.length ? list : withoutPci(list))
  )
}

const withoutPci = (operations: ReadonlyArray<Operation>): ReadonlyArray<Operation> =>
  operations.flatMap((operation): ReadonlyArray<Operation> => {
    switch (operation._tag) {
      case "PciRead":
      case "PciWrite":
        return []
      case "Loop":
        return [{ ...operation, body: withoutPci(operation.body) }]
      default:
        return [operation]
    }
  })

/** `size` bytes of each byte, all different, so that a wrong order shows. */
const repeatEach = (data: Uint8Array, size: number): Uint8Array =>
  Uint8Array.from({ length: data.length * size }, (_, index) => (data[Math.floor(index / size)] ?? 0) + index)
