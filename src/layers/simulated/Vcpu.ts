/**
 * One simulated vCPU: its registers, its view of guest memory, and its requests. What its instructions do is in
 * Interpreter.ts.
 *
 * An instruction whose access waits for a device is given up with nothing changed and executed again once the answer is
 * there; the answers it got before are kept in a log, so that each access reaches its device once.
 */
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { Regs } from "../../domain/abi/VcpuRegs.ts"
import { PORT_SPACE_END } from "../../domain/Limits.ts"
import { narrow } from "../../domain/SlotWords.ts"
import * as VcpuRegisters from "../../domain/VcpuRegisters.ts"
import type { SlotWriter } from "../model/SlotWriter.ts"
import { Eflags, Flags } from "./Flags.ts"
import type { GuestPage, GuestPages } from "./GuestPages.ts"
import { Pic8259 } from "./Pic8259.ts"

const CACHED_PAGES = 64
const { Paging, ProtectionEnable } = VcpuRegisters.Cr0

/** The numbers by which instructions name segments. */
export const Segment = { Es: 0, Cs: 1, Ss: 2, Ds: 3, Fs: 4, Gs: 5 } as const

const ESP = 4

/** Thrown to give an instruction up until its request is answered. */
export const WAITING = Symbol("waiting for an answer")

/** Thrown when an instruction cannot be executed. */
export class CannotExecute {
  readonly reason: "UnsupportedInstruction" | "Shutdown"
  readonly cause: string
  constructor(reason: "UnsupportedInstruction" | "Shutdown", cause: string) {
    this.reason = reason
    this.cause = cause
  }
}

export class Vcpu {
  readonly id: number
  readonly flags = new Flags()
  /** EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI. */
  readonly registers = new Int32Array(8)
  readonly selectors = new Uint16Array(8)
  /** The linear address of the next instruction, whatever segment it lies in. */
  eip = 0
  isInterruptEnabled = false
  isDirectionDown = false
  /** Interrupts wait for one instruction more: the one after STI. */
  isShadowed = false
  isHalted = false
  /** In real mode a segment begins at 16 times what was loaded, and offsets have 16 bits; else all begin at 0. */
  isReal = false
  gdtBase = 0
  gdtLimit = 0
  idtBase = 0
  idtLimit = 0
  /** The VM's interrupt controllers, which every vCPU can program. */
  picPorts: Pic8259 | undefined
  /** The same for the vCPU that they interrupt. */
  pic: Pic8259 | undefined
  /** Tells the engine how far this vCPU got before it lets a device see time. */
  onAccess: () => void = () => undefined

  readonly requests: SlotWriter
  private readonly bases = new Float64Array(8)
  private readonly pages: GuestPages
  private readonly cachedNumbers = new Int32Array(CACHED_PAGES).fill(-1)
  private readonly cachedPages: Array<GuestPage | undefined> = Array.from({ length: CACHED_PAGES }, () => undefined)
  private initial: Regs = VcpuRegisters.zero
  private answers: Array<number> = []
  private answersUsed = 0
  /** The request that is out belongs to an instruction that will not be executed again. */
  private isAnswerUnwanted = false

  constructor(id: number, pages: GuestPages, requests: SlotWriter) {
    this.id = id
    this.pages = pages
    this.requests = requests
  }

  /** Forgets cached pages: the map changed. */
  flush(): void {
    this.cachedNumbers.fill(-1)
  }

  setRegisters(registers: Regs): void {
    this.initial = registers
    const { gprs } = registers
    const values = [gprs.rax, gprs.rcx, gprs.rdx, gprs.rbx, gprs.rsp, gprs.rbp, gprs.rsi, gprs.rdi]
    values.forEach((value, index) => {
      this.registers[index] = Number(BigInt.asIntN(32, value))
    })
    this.selectors.set([
      registers.esSel,
      registers.csSel,
      registers.ssSel,
      registers.dsSel,
      registers.fsSel,
      registers.gsSel
    ])
    this.isReal = (registers.cr0 & ProtectionEnable) === 0n
    // set_vcpu_regs of ACRN's vcpu.c: CS comes with its base, the others begin at 0 until the guest loads them.
    this.bases.fill(0)
    this.bases[Segment.Cs] = Number(BigInt.asUintN(32, registers.csBase))
    this.eip = Number(BigInt.asUintN(32, registers.csBase + registers.rip))
    this.eflags = Number(BigInt.asUintN(32, registers.rflags))
    this.gdtBase = Number(BigInt.asUintN(32, registers.gdt.base))
    this.gdtLimit = registers.gdt.limit
    this.idtBase = Number(BigInt.asUintN(32, registers.idt.base))
    this.idtLimit = registers.idt.limit
    this.isHalted = false
    this.isShadowed = false
    this.clearAnswers()
    this.isAnswerUnwanted = this.requests.isWaiting
  }

  /** Back to the registers that were set last, with nothing in flight. */
  reset(): void {
    this.requests.abandon()
    this.setRegisters(this.initial)
  }

  getRegisters(): Regs {
    const unsigned = (index: number) => BigInt(this.registers[index]! >>> 0)
    return {
      ...this.initial,
      gprs: {
        ...this.initial.gprs,
        rax: unsigned(0),
        rcx: unsigned(1),
        rdx: unsigned(2),
        rbx: unsigned(3),
        rsp: unsigned(4),
        rbp: unsigned(5),
        rsi: unsigned(6),
        rdi: unsigned(7)
      },
      rip: BigInt(this.eip - this.bases[Segment.Cs]! >>> 0),
      csBase: BigInt(this.bases[Segment.Cs]!),
      rflags: BigInt(this.eflags >>> 0),
      gdt: { base: BigInt(this.gdtBase), limit: this.gdtLimit },
      idt: { base: BigInt(this.idtBase), limit: this.idtLimit },
      esSel: this.selectors[0]!,
      csSel: this.selectors[1]!,
      ssSel: this.selectors[2]!,
      dsSel: this.selectors[3]!,
      fsSel: this.selectors[4]!,
      gsSel: this.selectors[5]!
    }
  }

  /** Why this vCPU cannot run with the registers it was given, if it cannot. */
  get startProblem(): string | undefined {
    const { cr0, csBase } = this.initial
    const isSet = this.initial !== VcpuRegisters.zero
    if (isSet && (cr0 & Paging) === 0n && (this.isReal || csBase === 0n)) return undefined
    return "the simulated vCPU executes real mode and flat 32-bit protected mode, both without paging: " +
      "set registers with VcpuRegisters.flat32 or VcpuRegisters.realMode"
  }

  /** The linear address of an offset in a segment. */
  linear(segment: number, offset: number): number {
    return this.isReal ? this.bases[segment]! + (offset & 0xffff) | 0 : offset
  }

  setSegment(segment: number, selector: number): void {
    this.selectors[segment] = selector
    if (this.isReal) this.bases[segment] = (selector & 0xffff) * 16
  }

  /** Where the next instruction is from here: the offset in CS that near jumps and calls know. */
  get ip(): number {
    return this.isReal ? this.eip - this.bases[Segment.Cs]! & 0xffff : this.eip
  }

  set ip(offset: number) {
    this.eip = this.linear(Segment.Cs, offset)
  }

  /** Moves a register that counts or points: in real mode its low half is all there is of it. */
  advance(register: number, by: number): void {
    const value = this.registers[register]!
    this.registers[register] = this.isReal ? value & ~0xffff | value + by & 0xffff : value + by
  }

  /** What a counter holds. */
  count(register: number): number {
    return this.isReal ? this.registers[register]! & 0xffff : this.registers[register]!
  }

  get eflags(): number {
    return this.flags.bits | (this.isInterruptEnabled ? Eflags.Interrupt : 0) |
      (this.isDirectionDown ? Eflags.Direction : 0)
  }

  set eflags(value: number) {
    this.flags.bits = value
    this.isInterruptEnabled = (value & Eflags.Interrupt) !== 0
    this.isDirectionDown = (value & Eflags.Direction) !== 0
  }

  /** The page that holds a guest address, from the cache if it was used lately. */
  page(address: number): GuestPage | undefined {
    const number = address >>> 12
    const slot = number & (CACHED_PAGES - 1)
    if (this.cachedNumbers[slot] === number) return this.cachedPages[slot]
    const page = this.pages.find(number)
    this.cachedNumbers[slot] = number
    this.cachedPages[slot] = page
    return page
  }

  /** The little-endian unsigned value of `size` bytes at a guest address: RAM, or a request. */
  read(address: number, size: number): number {
    const offset = address & 0xfff
    // Each of two pages may be RAM or not.
    if (offset + size > 0x1000) return this.readAcross(address, size)
    const page = this.page(address)
    if (page === undefined) return this.mmio(Slot.DirectionCode.Read, address >>> 0, size, 0)
    const bytes = page.bytes
    switch (size) {
      case 1:
        return bytes[offset]!
      case 2:
        return bytes[offset]! | bytes[offset + 1]! << 8
      default:
        return (bytes[offset]! | bytes[offset + 1]! << 8 | bytes[offset + 2]! << 16 | bytes[offset + 3]! << 24) >>> 0
    }
  }

  write(address: number, size: number, value: number): void {
    const offset = address & 0xfff
    if (offset + size > 0x1000) return this.writeAcross(address, size, value)
    const page = this.page(address)
    // Guard: cve-2024-38610
    if (page === undefined || !page.writable) {
      const type = page === undefined ? Slot.RequestTypeCode.Mmio : Slot.RequestTypeCode.WriteProtected
      this.mmio(Slot.DirectionCode.Write, address >>> 0, size, narrow(value, size), type)
      return
    }
    const bytes = page.bytes
    bytes[offset] = value
    if (size === 1) return
    bytes[offset + 1] = value >> 8
    if (size === 2) return
    bytes[offset + 2] = value >> 16
    bytes[offset + 3] = value >> 24
  }

  /** The linear address `by` bytes above the top of the stack. */
  onStack(by: number): number {
    return this.linear(Segment.Ss, this.registers[ESP]! + by | 0)
  }

  push(value: number, size = 4): void {
    this.write(this.onStack(-size), size, value)
    this.advance(ESP, -size)
  }

  pop(size = 4): number {
    const value = this.read(this.onStack(0), size)
    this.advance(ESP, size)
    return value | 0
  }

  /** Reads a port; negative when the instruction must wait. */
  portRead(port: number, size: number): number {
    if (this.isForPic(port, size)) return this.picPorts!.read(port)
    return this.portAccess(Slot.DirectionCode.Read, port, size, 0)
  }

  /** Reads a port for an instruction that may have to wait afterwards: the answer is kept for the next attempt. */
  portReadKept(port: number, size: number): number {
    const isKept = this.answersUsed < this.answers.length
    const value = this.portRead(port, size)
    if (value >= 0 && !isKept) {
      this.answers.push(value)
      this.answersUsed++
    }
    return value
  }

  /** Writes a port; negative when the instruction must wait. */
  portWrite(port: number, size: number, value: number): number {
    if (this.isForPic(port, size)) {
      this.picPorts!.write(port, value)
      return 0
    }
    return this.portAccess(Slot.DirectionCode.Write, port, size, narrow(value, size))
  }

  /** Whether the instruction at hand got answers already, in an attempt that had to wait. */
  get hasAnswers(): boolean {
    return this.answers.length > 0
  }

  /** An instruction was completed: its answers were used. */
  clearAnswers(): void {
    if (this.answers.length > 0) this.answers = []
    this.answersUsed = 0
  }

  /** An instruction begins, perhaps again. */
  rewindAnswers(): void {
    this.answersUsed = 0
  }

  /** Takes the answer that a waiting instruction got; false while there is none. */
  takeAnswer(): boolean {
    if (!this.requests.isAnswered()) return false
    const answer = this.requests.take()
    if (!this.isAnswerUnwanted) this.answers.push(answer)
    this.isAnswerUnwanted = false
    return true
  }

  /** As in the emulated core, the interrupt controllers answer accesses of one byte. */
  private isForPic(port: number, size: number): boolean {
    return this.picPorts !== undefined && size === 1 && Pic8259.owns(port)
  }

  private portAccess(direction: number, port: number, size: number, value: number): number {
    // Guard: xen-b7e0d89788
    if (this.answersUsed < this.answers.length) return this.answers[this.answersUsed++]!
    this.onAccess()
    // A port's bytes beyond 0xFFFF do not exist; a processor wraps or drops them, the page has no room for them.
    if (port + size > PORT_SPACE_END) return narrow(-1, size)
    if (!this.requests.submit(Slot.RequestTypeCode.PortIo, direction, port, size, value)) return -1
    return narrow(this.requests.take(), size)
  }

  private mmio(
    direction: number,
    address: number,
    size: number,
    value: number,
    type: number = Slot.RequestTypeCode.Mmio
  ) {
    // Guard: xen-b7e0d89788
    if (this.answersUsed < this.answers.length) return this.answers[this.answersUsed++]!
    this.onAccess()
    if (!this.requests.submit(type, direction, address, size, value)) throw WAITING
    const answer = narrow(this.requests.take(), size)
    this.answers.push(answer)
    this.answersUsed++
    return answer
  }

  private readAcross(address: number, size: number): number {
    let value = 0
    for (let i = 0; i < size; i++) value |= this.read(address + i | 0, 1) << i * 8
    return value >>> 0
  }

  private writeAcross(address: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.write(address + i | 0, 1, value >>> i * 8 & 0xff)
  }
}
