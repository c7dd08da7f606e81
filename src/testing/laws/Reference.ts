/**
 * The oracle of the laws: what guest programs see and what their devices are asked, by the rules of the protocol and as
 * plainly as they can be written down. It shares no code with what serves requests; it is slow, and its vCPUs run one
 * after the other.
 *
 * That order is enough: what a world's clients say to a vCPU does not depend on the others. Only PCI's address register
 * at 0xCF8 is the VM's, so one vCPU of a case may use it.
 */
import type { GuestAddress, Port, VcpuId } from "../../domain/Address.ts"
import type { IoRange } from "../../domain/IoRange.ts"
import * as IoRequest from "../../domain/IoRequest.ts"
import * as GuestProgram from "../GuestProgram.ts"
import * as Trace from "../Trace.ts"
import * as World from "./World.ts"

type Request = IoRequest.IoRequest

/** A request that was served: by whom, and what the guest read, if it read. */
export interface Served {
  readonly client: string
  readonly request: Request
  readonly answer?: number | bigint
  /** Whether it was served below the dispatcher, which then saw nothing of it. */
  readonly isBelow?: boolean
}

/** What is to be seen of one vCPU. */
export interface VcpuOutcome {
  readonly served: ReadonlyArray<Served>
  readonly results: Uint8Array
  readonly accumulator: bigint
}

/**
 * How many of the bytes `[address, address + bytes)` a hypervisor passes on as its first request: the protocol leaves
 * it to a hypervisor whether a guest's access to memory reaches the page whole or in pieces, lowest address first.
 */
export type FirstPiece = (vcpu: number, isWrite: boolean, address: number, bytes: number) => number

/** Every access to memory as one request. */
const whole: FirstPiece = (_vcpu, _isWrite, _address, bytes) => bytes

/** Every access to memory as requests of one byte. */
export const byteByByte: FirstPiece = () => 1

/** In the pieces that a hypervisor was seen to make, per vCPU; where it made no fitting one, whole. */
export const inPiecesOf = (served: ReadonlyArray<ReadonlyArray<Served>>): FirstPiece => {
  const memory = served.map((requests) =>
    requests.map(({ request }) => request).filter((request) =>
      request._tag === "MmioRead" || request._tag === "MmioWrite"
    )
  )
  return (vcpu, isWrite, address, bytes) => {
    const next = memory[vcpu]?.shift()
    const fits = next !== undefined && (next._tag === "MmioWrite") === isWrite && next.address === address &&
      next.size <= bytes
    return fits ? next.size : bytes
  }
}

// A client's name in parentheses is none.
const NOBODY = "(nobody)"
const CONFIG_ADDRESS = "(PCI config address)"
const PORT_SPACE_END = 0x1_0000

const allOnes = (bytes: number): bigint => (1n << BigInt(8 * bytes)) - 1n

const cut = (value: number | bigint, bytes: number): bigint => BigInt.asUintN(8 * bytes, BigInt(value))

/** Whether every byte of the access lies in the range. */
const holds = (range: IoRange, request: Request): boolean => {
  const isWithin = (start: number, end: number, first: number) => start <= first && first + request.size - 1 <= end
  switch (request._tag) {
    case "PortRead":
    case "PortWrite":
      return range._tag === "Port" && isWithin(range.start, range.end, request.port)
    case "MmioRead":
    case "MmioWrite":
      return range._tag === "Mmio" && isWithin(range.start, range.end, request.address)
    case "PciRead":
    case "PciWrite":
      return range._tag === "PciFunction" && range.bus === request.bus && range.device === request.device &&
        range.function === request.function
  }
}

/** Who gets a request: one client, whole. */
export const clientOf = (world: World.World, request: Request): string => {
  for (const { name, ranges } of world.clients) {
    if (ranges.some((range) => holds(range, request))) return name
  }
  if (request._tag === "PciRead" || request._tag === "PciWrite") {
    for (const { name, ranges } of world.clients) {
      if (ranges.some(({ _tag }) => _tag === "PciAny")) return name
    }
  }
  return world.default === undefined ? NOBODY : World.DEFAULT_CLIENT
}

/** The dispatcher of one VM: it serves requests one at a time, from the first one of its life on. */
export class Dispatcher {
  /** Whose clients there are; they may come and go. */
  world: World.World
  private readonly valueOf: ReturnType<typeof World.makeValues>
  private configAddress = 0

  constructor(world: World.World) {
    this.world = world
    this.valueOf = World.makeValues(world.seed)
  }

  serve(asked: Request): Served {
    const served = this.serveAnywhere(asked)
    const isBelow = this.world.configFoldedBelow === true && served.client === CONFIG_ADDRESS
    return isBelow ? { ...served, isBelow } : served
  }

  private serveAnywhere(asked: Request): Served {
    const folded = this.fold(asked)
    if (folded === "Address") {
      if (asked._tag !== "PortWrite") return this.answered(CONFIG_ADDRESS, asked, this.configAddress)
      this.configAddress = asked.value
      return { client: CONFIG_ADDRESS, request: asked }
    }
    if (folded === "Disabled") return this.answered(CONFIG_ADDRESS, asked, undefined)
    const client = clientOf(this.world, folded)
    if (client === NOBODY) return this.answered(NOBODY, folded, undefined)
    const said = this.valueOf(client, folded)
    const answers = client === World.DEFAULT_CLIENT
      ? this.world.default
      : this.world.clients.find(({ name }) => name === client)?.answers
    return this.answered(client, folded, answers !== undefined && World.hasValue(answers) ? said : undefined)
  }

  /** What a port access is, if it is about PCI configuration: the address register, or the dword that it selects. */
  private fold(request: Request): Request | "Address" | "Disabled" {
    if (request._tag !== "PortRead" && request._tag !== "PortWrite") return request
    const { port, size, vcpu } = request
    // Linux's module goes by the first port alone (`is_cfg_addr`, `is_cfg_data`).
    const isBelow = this.world.configFoldedBelow === true
    const span = isBelow ? 1 : size
    if (port === 0xcf8 && (isBelow || size === 4)) return "Address"
    if (port < 0xcfc || port + span > 0xd00) return request
    const address = this.configAddress
    if (Math.floor(address / 2 ** 31) === 0) return "Disabled"
    const bitsOf = (low: number, count: number) => Math.floor(address / 2 ** low) % 2 ** count
    const target = {
      vcpu,
      bus: bitsOf(16, 8),
      device: bitsOf(11, 5),
      function: bitsOf(8, 3),
      register: bitsOf(24, 4) * 256 + bitsOf(2, 6) * 4 + (port - 0xcfc),
      size
    }
    return request._tag === "PortRead"
      ? { _tag: "PciRead", ...target }
      : { _tag: "PciWrite", ...target, value: request.value }
  }

  /** A read's answer, cut to the access; nothing reads as all-ones. */
  private answered(client: string, request: Request, said: number | bigint | undefined): Served {
    if ("value" in request) return { client, request }
    const bits = said === undefined ? allOnes(request.size) : cut(said, request.size)
    return { client, request, answer: request._tag === "MmioRead" ? bits : Number(bits) }
  }
}

class Vcpu {
  readonly served: Array<Served> = []
  readonly results: Array<number> = []
  accumulator = 0n
  private isHalted = false
  private readonly id: VcpuId
  private readonly dispatcher: Pick<Dispatcher, "serve">
  private readonly firstPiece: FirstPiece

  constructor(id: number, dispatcher: Pick<Dispatcher, "serve">, firstPiece: FirstPiece) {
    this.id = id as VcpuId
    this.dispatcher = dispatcher
    this.firstPiece = firstPiece
  }

  run(operations: ReadonlyArray<GuestProgram.Operation>): void {
    for (const operation of operations) {
      if (this.isHalted) return
      this.step(operation)
    }
  }

  private step(operation: GuestProgram.Operation): void {
    switch (operation._tag) {
      case "PortIn":
        return this.setLow(this.portRead(operation.port, operation.size), operation.size)
      case "PortOut":
        this.set(operation.value)
        return this.portWrite(operation.port, operation.size, this.accumulator)
      case "StringIn": {
        const { count, port, size } = operation
        for (let i = 0; i < count; i++) this.keep(this.portRead(port, size), size)
        while (this.results.length % 4 !== 0) this.results.push(0)
        return
      }
      case "StringOut": {
        const { bytes, port, size } = operation
        for (let at = 0; at < bytes.length; at += size) {
          this.portWrite(port, size, fromBytes(bytes.subarray(at, at + size)))
        }
        return
      }
      case "Load":
        return this.setLow(this.load(operation.address, operation.size), operation.size)
      case "Store":
        this.set(operation.value, operation.size)
        return this.store(operation.address, operation.size, this.accumulator)
      case "PciRead":
        this.selectPci(operation)
        return this.setLow(this.portRead(0xcfc + operation.register % 4, operation.size), operation.size)
      case "PciWrite":
        this.set(operation.value)
        this.selectPci(operation)
        return this.portWrite(0xcfc + operation.register % 4, operation.size, this.accumulator)
      case "Work":
        return this.set(GuestProgram.work(Number(cut(this.accumulator, 4)), operation.rounds))
      case "Keep":
        return this.keep(this.accumulator, operation.size ?? 4)
      case "Loop":
        for (let round = 0; round < operation.times; round++) this.run(operation.body)
        return
      case "Halt":
        this.isHalted = true
        return
      case "Code":
        throw new Error("the reference executes operations, not machine code")
    }
  }

  private set(value: number | bigint | undefined, bytes = 4): void {
    if (value !== undefined) this.accumulator = cut(value, Math.max(bytes, 4))
  }

  /** 4 bytes clear those above them. */
  private setLow(value: bigint, bytes: number): void {
    const kept = bytes < 4 ? this.accumulator & ~allOnes(bytes) : 0n
    this.accumulator = kept | value
  }

  private keep(value: bigint, bytes: number): void {
    for (let i = 0; i < bytes; i++) this.results.push(Number(cut(value >> BigInt(8 * i), 1)))
  }

  private selectPci(
    at: { readonly bus: number; readonly device: number; readonly function: number; readonly register: number }
  ): void {
    const extended = Math.floor(at.register / 256)
    const dword = Math.floor(at.register % 256 / 4)
    const word = 2 ** 31 + extended * 2 ** 24 + at.bus * 2 ** 16 + at.device * 2 ** 11 + at.function * 2 ** 8 +
      dword * 4
    this.portWrite(0xcf8, 4, BigInt(word))
  }

  private ask(request: Request): bigint {
    const served = this.dispatcher.serve(request)
    if (served.isBelow !== true) this.served.push(served)
    return BigInt(served.answer ?? 0)
  }

  /** Bytes of ports beyond 0xFFFF do not exist: such an access is none, on no hypervisor. */
  private portRead(port: number, size: 1 | 2 | 4): bigint {
    if (port + size > PORT_SPACE_END) return allOnes(size)
    return this.ask({ _tag: "PortRead", vcpu: this.id, port: port as Port, size })
  }

  private portWrite(port: number, size: 1 | 2 | 4, value: bigint): void {
    if (port + size > PORT_SPACE_END) return
    this.ask({ _tag: "PortWrite", vcpu: this.id, port: port as Port, size, value: Number(cut(value, size)) })
  }

  private load(address: number, size: number): bigint {
    let value = 0n
    for (let done = 0; done < size;) {
      const at = address + done
      const bytes = this.firstPiece(this.id, false, at, size - done) as 1 | 2 | 4 | 8
      const piece = this.ask({ _tag: "MmioRead", vcpu: this.id, address: at as GuestAddress, size: bytes })
      value |= piece << BigInt(8 * done)
      done += bytes
    }
    return value
  }

  private store(address: number, size: number, value: bigint): void {
    for (let done = 0; done < size;) {
      const at = address + done
      const bytes = this.firstPiece(this.id, true, at, size - done) as 1 | 2 | 4 | 8
      const piece = cut(value >> BigInt(8 * done), bytes)
      this.ask({ _tag: "MmioWrite", vcpu: this.id, address: at as GuestAddress, size: bytes, value: piece })
      done += bytes
    }
  }
}

const fromBytes = (bytes: Uint8Array): bigint =>
  bytes.reduce((value, byte, index) => value | BigInt(byte) << BigInt(8 * index), 0n)

/**
 * Runs programs, the first one on vCPU 0, in a VM with these clients. They load and store outside of RAM only, and have
 * no machine code of their own.
 */
export const run = (
  world: World.World,
  programs: ReadonlyArray<ReadonlyArray<GuestProgram.Operation>>,
  firstPiece: FirstPiece = whole
): ReadonlyArray<VcpuOutcome> => runOn(new Dispatcher(world), programs, firstPiece)

/** As {@link run}, with a dispatcher of the law's own. */
export const runOn = (
  dispatcher: Pick<Dispatcher, "serve">,
  programs: ReadonlyArray<ReadonlyArray<GuestProgram.Operation>>,
  firstPiece: FirstPiece
): ReadonlyArray<VcpuOutcome> =>
  programs.map((operations, id) => {
    const vcpu = new Vcpu(id, dispatcher, firstPiece)
    vcpu.run(operations)
    return {
      served: vcpu.served,
      results: Uint8Array.from(vcpu.results),
      accumulator: vcpu.accumulator
    }
  })

/** What a trace shows of each vCPU: its requests that were answered, in order. */
export const servedIn = (
  entries: ReadonlyArray<Trace.TraceEntry>,
  vcpus: number
): ReadonlyArray<ReadonlyArray<Served>> =>
  Array.from({ length: vcpus }, (_, vcpu) =>
    entries.flatMap((entry): Array<Served> => {
      if (entry._tag !== "Answered" || entry.request.vcpu !== vcpu) return []
      const { answer, client, request } = entry
      return [answer === undefined ? { client, request } : { client, request, answer }]
    }))

const isSame = (a: Served | undefined, b: Served | undefined): boolean => {
  if (a === undefined || b === undefined) return false
  const [left, right] = [Object.entries(a.request), Object.entries(b.request)]
  return a.client === b.client && a.answer === b.answer && left.length === right.length &&
    left.every(([field, value]) => right.some(([name, other]) => name === field && other === value))
}

/** A served request for people: `alpha answered 0x60: read 1 byte from port 0x300 (vCPU 0)`. */
const formatServed = ({ answer, client, request }: Served): string => {
  const said = "value" in request ? "took" : `answered ${answer === undefined ? "nothing" : `0x${answer.toString(16)}`}`
  return `${client} ${said}: ${IoRequest.format(request)}`
}

/** Where what was seen of a vCPU parts from what must be, in words; `undefined` when it does not. */
export const firstDifference = (
  expected: ReadonlyArray<Served>,
  seen: ReadonlyArray<Served>
): string | undefined => {
  const length = Math.max(expected.length, seen.length)
  for (let index = 0; index < length; index++) {
    const [must, is] = [expected[index], seen[index]]
    if (isSame(must, is)) continue
    return `request ${index} must be\n  ${must === undefined ? "none" : formatServed(must)}\nbut was\n  ` +
      (is === undefined ? "none" : formatServed(is))
  }
  return undefined
}
