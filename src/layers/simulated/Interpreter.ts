/**
 * What instructions do: the small subset of x86 that Upcall's guest programs use, executed from guest memory, in flat
 * 32-bit protected mode or in real mode. Anything else gives up with the instruction's address and bytes.
 *
 * Memory is touched before registers, so that an instruction which must wait for a device can be executed again.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
 */
import { narrow } from "../../domain/SlotWords.ts"
import { Alu } from "./Flags.ts"
import { CannotExecute, Segment, type Vcpu, WAITING } from "./Vcpu.ts"

const EAX = 0
const ECX = 1
const EDX = 2
const EBX = 3
const ESP = 4
const EBP = 5
const ESI = 6
const EDI = 7

const INTERRUPT_GATE_32 = 0x8e
const TRAP_GATE_32 = 0x8f

// Segments that prefixes name; a flat guest has no use for them.
const SEGMENT_PREFIXES: ReadonlyMap<number, number> = new Map([
  [0x26, Segment.Es],
  [0x2e, Segment.Cs],
  [0x36, Segment.Ss],
  [0x3e, Segment.Ds],
  [0x64, Segment.Fs],
  [0x65, Segment.Gs]
])

/** How a run of instructions stopped. */
export type Stop = "Budget" | "Waiting" | "Halted"

/** Fetches and executes instructions of one vCPU. */
export class Interpreter {
  /** Instructions executed by the current or last {@link run}. */
  executed = 0
  private readonly vcpu: Vcpu
  private code: Uint8Array = new Uint8Array(0)
  private codePage = -1
  private start = 0
  private operandSize = 4
  /** Bytes of what goes to the stack or is an offset in the code. */
  private nearSize = 4
  private repeat = 0
  /** The segment of memory operands that a prefix names, or -1. */
  private segment = -1
  private carryBefore = 0
  // The ModRM byte of the instruction at hand.
  private isRegister = false
  private reg = 0
  private rm = 0
  private offset = 0
  private address = 0

  constructor(vcpu: Vcpu) {
    this.vcpu = vcpu
  }

  /** Executes up to `budget` instructions. Throws {@link CannotExecute}. */
  run(budget: number): Stop {
    const vcpu = this.vcpu
    this.codePage = -1
    this.executed = 0
    while (this.executed < budget) {
      // An instruction that has answers is in the middle of its accesses: interrupts come after it.
      if (vcpu.pic !== undefined && !vcpu.hasAnswers && this.takeInterrupt(vcpu)) continue
      if (vcpu.isHalted) return "Halted"
      vcpu.isShadowed = false
      this.start = vcpu.eip
      vcpu.rewindAnswers()
      try {
        if (this.step(vcpu)) {
          vcpu.clearAnswers()
          this.executed++
          continue
        }
      } catch (stop) {
        vcpu.eip = this.start
        if (stop !== WAITING) throw stop
      }
      vcpu.eip = this.start
      vcpu.flags.carry = this.carryBefore
      return "Waiting"
    }
    return "Budget"
  }

  /** The bytes of the instruction at `address`, as far as they are mapped; for messages. */
  bytesAt(address: number, length: number): Array<number> {
    const bytes: Array<number> = []
    for (let i = 0; i < length; i++) {
      const page = this.vcpu.page(address + i | 0)
      if (page === undefined) break
      bytes.push(page.bytes[address + i & 0xfff]!)
    }
    return bytes
  }

  private takeInterrupt(vcpu: Vcpu): boolean {
    if (!vcpu.isInterruptEnabled || vcpu.isShadowed || !vcpu.pic!.isPending) return false
    const vector = vcpu.pic!.acknowledge()
    if (vector < 0) return false
    vcpu.isHalted = false
    this.enter(vcpu, vector)
    return true
  }

  private enter(vcpu: Vcpu, vector: number): void {
    if (vcpu.isReal) return this.enterReal(vcpu, vector)
    const gate = vcpu.idtBase + vector * 8
    if (vector * 8 + 7 > vcpu.idtLimit) {
      throw new CannotExecute("Shutdown", `interrupt ${vector} has no gate: the IDT ends at ${vcpu.idtLimit}`)
    }
    const top = vcpu.registers[ESP]!
    const isWritable = (address: number) => vcpu.page(address | 0)?.writable === true
    if (
      vcpu.page(gate | 0) === undefined || vcpu.page(gate + 7 | 0) === undefined ||
      !isWritable(top - 12) || !isWritable(top - 1)
    ) {
      throw new CannotExecute("Shutdown", `interrupt ${vector} needs its gate and a writable stack in memory`)
    }
    const low = vcpu.read(gate | 0, 4)
    const high = vcpu.read(gate + 4 | 0, 4)
    const type = high >>> 8 & 0xff
    if (type !== INTERRUPT_GATE_32 && type !== TRAP_GATE_32) {
      throw new CannotExecute("Shutdown", `interrupt ${vector} has no 32-bit gate in the IDT`)
    }
    vcpu.push(vcpu.eflags)
    vcpu.push(vcpu.selectors[1]!)
    vcpu.push(vcpu.eip)
    if (type === INTERRUPT_GATE_32) vcpu.isInterruptEnabled = false
    vcpu.selectors[1] = low >>> 16
    vcpu.eip = high & 0xffff_0000 | low & 0xffff
  }

  /** Real mode has a table of far pointers, from address 0 where nothing else was loaded. */
  private enterReal(vcpu: Vcpu, vector: number): void {
    const entry = vcpu.idtBase + vector * 4 | 0
    const isReady = vector * 4 + 3 <= vcpu.idtLimit && vcpu.page(entry) !== undefined &&
      vcpu.page(entry + 3 | 0) !== undefined &&
      [-6, -5, -4, -3, -2, -1].every((by) => vcpu.page(vcpu.onStack(by))?.writable === true)
    if (!isReady) {
      throw new CannotExecute("Shutdown", `interrupt ${vector} needs its vector and a writable stack in memory`)
    }
    const vectorOffset = vcpu.read(entry, 2)
    const vectorSelector = vcpu.read(entry + 2 | 0, 2)
    vcpu.push(vcpu.eflags, 2)
    vcpu.push(vcpu.selectors[Segment.Cs]!, 2)
    vcpu.push(vcpu.ip, 2)
    vcpu.isInterruptEnabled = false
    vcpu.setSegment(Segment.Cs, vectorSelector)
    vcpu.ip = vectorOffset
  }

  /** Reads prefixes; the opcode behind them. */
  private prefixes(vcpu: Vcpu): number {
    const isReal = vcpu.isReal
    this.operandSize = isReal ? 2 : 4
    this.repeat = 0
    this.segment = -1
    let opcode = this.fetch8()
    for (;;) {
      if (opcode === 0x66) this.operandSize = isReal ? 4 : 2
      else if (opcode === 0xf2 || opcode === 0xf3) this.repeat = opcode
      else if (isReal && SEGMENT_PREFIXES.has(opcode)) this.segment = SEGMENT_PREFIXES.get(opcode)!
      else break
      opcode = this.fetch8()
    }
    this.nearSize = isReal ? this.operandSize : 4
    return opcode
  }

  /** Executes one instruction; false when it waits for a port. */
  private step(vcpu: Vcpu): boolean {
    this.carryBefore = vcpu.flags.carry
    const opcode = this.prefixes(vcpu)
    if (opcode < 0x40 && (opcode & 7) < 6) return this.arithmetic(vcpu, opcode >> 3, opcode & 7)
    const size = this.operandSize
    const near = this.nearSize
    const registers = vcpu.registers
    switch (opcode) {
      case 0x0f:
        return this.twoBytes(vcpu, this.fetch8())
      case 0x60:
        for (let i = 0; i < 8; i++) vcpu.write(vcpu.onStack(-near * (i + 1)), near, registers[i]!)
        vcpu.advance(ESP, -near * 8)
        return true
      case 0x61: {
        const values = Array.from({ length: 8 }, (_, i) => vcpu.read(vcpu.onStack(near * (7 - i)), near))
        values.forEach((value, i) => {
          if (i !== ESP) this.writeReg(vcpu, i, near, value)
        })
        vcpu.advance(ESP, near * 8)
        return true
      }
      case 0x68:
        vcpu.push(this.fetch(near), near)
        return true
      case 0x6a:
        vcpu.push(this.fetchSigned8(), near)
        return true
      case 0x6c:
        return this.string(vcpu, 1, inString)
      case 0x6d:
        return this.string(vcpu, size, inString)
      case 0x6e:
        return this.string(vcpu, 1, outString)
      case 0x6f:
        return this.string(vcpu, size, outString)
      case 0x80:
      case 0x81:
      case 0x83: {
        const width = opcode === 0x80 ? 1 : size
        this.modRm(vcpu)
        const immediate = opcode === 0x81 ? this.fetch(width) : this.fetchSigned8()
        const result = vcpu.flags.alu(this.reg, this.readRm(vcpu, width), immediate, width)
        if (this.reg !== Alu.Cmp) this.writeRm(vcpu, width, result)
        return true
      }
      case 0x84:
      case 0x85: {
        const width = opcode === 0x84 ? 1 : size
        this.modRm(vcpu)
        vcpu.flags.logic(this.readRm(vcpu, width) & this.readReg(vcpu, this.reg, width), width)
        return true
      }
      case 0x86:
      case 0x87: {
        const width = opcode === 0x86 ? 1 : size
        this.modRm(vcpu)
        const memory = this.readRm(vcpu, width)
        this.writeRm(vcpu, width, this.readReg(vcpu, this.reg, width))
        this.writeReg(vcpu, this.reg, width, memory)
        return true
      }
      case 0x88:
      case 0x89: {
        const width = opcode === 0x88 ? 1 : size
        this.modRm(vcpu)
        this.writeRm(vcpu, width, this.readReg(vcpu, this.reg, width))
        return true
      }
      case 0x8a:
      case 0x8b: {
        const width = opcode === 0x8a ? 1 : size
        this.modRm(vcpu)
        this.writeReg(vcpu, this.reg, width, this.readRm(vcpu, width))
        return true
      }
      case 0x8c:
        this.modRm(vcpu)
        this.writeRm(vcpu, this.isRegister ? size : 2, vcpu.selectors[this.reg]!)
        return true
      case 0x8d:
        this.modRm(vcpu)
        if (this.isRegister) return this.unsupported("LEA of a register")
        this.writeReg(vcpu, this.reg, size, this.offset)
        return true
      case 0x8e:
        this.modRm(vcpu)
        if (vcpu.isReal && this.reg === Segment.Cs) return this.unsupported("MOV to CS")
        vcpu.setSegment(this.reg, this.readRm(vcpu, 2))
        return true
      case 0x90:
        return true
      case 0xa0:
      case 0xa1: {
        const width = opcode === 0xa0 ? 1 : size
        this.writeReg(vcpu, EAX, width, vcpu.read(this.fetchAddress(vcpu), width))
        return true
      }
      case 0xa2:
      case 0xa3: {
        const width = opcode === 0xa2 ? 1 : size
        vcpu.write(this.fetchAddress(vcpu), width, this.readReg(vcpu, EAX, width))
        return true
      }
      case 0xa4:
        return this.string(vcpu, 1, moveString)
      case 0xa5:
        return this.string(vcpu, size, moveString)
      case 0xa8:
        vcpu.flags.logic(this.readReg(vcpu, EAX, 1) & this.fetch8(), 1)
        return true
      case 0xa9:
        vcpu.flags.logic(this.readReg(vcpu, EAX, size) & this.fetch(size), size)
        return true
      case 0xaa:
        return this.string(vcpu, 1, storeString)
      case 0xab:
        return this.string(vcpu, size, storeString)
      case 0xac:
        return this.string(vcpu, 1, loadString)
      case 0xad:
        return this.string(vcpu, size, loadString)
      case 0xc0:
      case 0xc1: {
        const width = opcode === 0xc0 ? 1 : size
        this.modRm(vcpu)
        return this.shift(vcpu, width, this.fetch8())
      }
      case 0xd0:
      case 0xd1:
        this.modRm(vcpu)
        return this.shift(vcpu, opcode === 0xd0 ? 1 : size, 1)
      case 0xd2:
      case 0xd3:
        this.modRm(vcpu)
        return this.shift(vcpu, opcode === 0xd2 ? 1 : size, registers[ECX]! & 0xff)
      case 0xc3:
        vcpu.ip = vcpu.pop(near)
        return true
      case 0xc6:
      case 0xc7: {
        const width = opcode === 0xc6 ? 1 : size
        this.modRm(vcpu)
        this.writeRm(vcpu, width, this.fetch(width))
        return true
      }
      case 0xcd: {
        const vector = this.fetch8()
        this.enter(vcpu, vector)
        return true
      }
      case 0xcf: {
        const target = vcpu.read(vcpu.onStack(0), near)
        const selector = vcpu.read(vcpu.onStack(near), near)
        const eflags = vcpu.read(vcpu.onStack(near * 2), near)
        vcpu.advance(ESP, near * 3)
        vcpu.setSegment(Segment.Cs, selector)
        vcpu.ip = target | 0
        vcpu.eflags = eflags
        return true
      }
      case 0xe0:
      case 0xe1:
      case 0xe2: {
        const by = this.fetchSigned8()
        vcpu.advance(ECX, -1)
        const isWanted = opcode === 0xe2 || (vcpu.flags.result === 0) === (opcode === 0xe1)
        if (vcpu.count(ECX) !== 0 && isWanted) this.jump(vcpu, by)
        return true
      }
      case 0xe3: {
        const by = this.fetchSigned8()
        if (vcpu.count(ECX) === 0) this.jump(vcpu, by)
        return true
      }
      case 0xe4:
        return this.portIn(vcpu, this.fetch8(), 1)
      case 0xe5:
        return this.portIn(vcpu, this.fetch8(), size)
      case 0xe6:
        return this.portOut(vcpu, this.fetch8(), 1)
      case 0xe7:
        return this.portOut(vcpu, this.fetch8(), size)
      case 0xec:
        return this.portIn(vcpu, registers[EDX]! & 0xffff, 1)
      case 0xed:
        return this.portIn(vcpu, registers[EDX]! & 0xffff, size)
      case 0xee:
        return this.portOut(vcpu, registers[EDX]! & 0xffff, 1)
      case 0xef:
        return this.portOut(vcpu, registers[EDX]! & 0xffff, size)
      case 0xe8: {
        const by = this.fetch(near)
        vcpu.push(vcpu.ip, near)
        this.jump(vcpu, by)
        return true
      }
      case 0xe9:
        this.jump(vcpu, this.fetch(near))
        return true
      case 0xea: {
        const target = this.fetch(near)
        vcpu.setSegment(Segment.Cs, this.fetch(2))
        vcpu.ip = target
        return true
      }
      case 0xeb:
        this.jump(vcpu, this.fetchSigned8())
        return true
      case 0xf4:
        vcpu.isHalted = true
        return true
      case 0xf6:
      case 0xf7:
        return this.unary(vcpu, opcode === 0xf6 ? 1 : size)
      case 0xf8:
        vcpu.flags.carry = 0
        return true
      case 0xf9:
        vcpu.flags.carry = 1
        return true
      case 0xfa:
        vcpu.isInterruptEnabled = false
        return true
      case 0xfb:
        vcpu.isShadowed = !vcpu.isInterruptEnabled
        vcpu.isInterruptEnabled = true
        return true
      case 0xfc:
        vcpu.isDirectionDown = false
        return true
      case 0xfd:
        vcpu.isDirectionDown = true
        return true
      case 0xfe:
      case 0xff:
        return this.groupFive(vcpu, opcode === 0xfe ? 1 : size)
      default:
        return this.byRange(vcpu, opcode, size)
    }
  }

  /** Opcodes that carry a register or a condition in their low bits. */
  private byRange(vcpu: Vcpu, opcode: number, size: number): boolean {
    const low = opcode & 7
    switch (opcode >> 3) {
      case 0x08:
        this.writeReg(vcpu, low, size, vcpu.flags.step(vcpu.registers[low]!, 1, size))
        return true
      case 0x09:
        this.writeReg(vcpu, low, size, vcpu.flags.step(vcpu.registers[low]!, -1, size))
        return true
      case 0x0a:
        vcpu.push(vcpu.registers[low]!, this.nearSize)
        return true
      case 0x0b:
        this.writeReg(vcpu, low, this.nearSize, vcpu.pop(this.nearSize))
        return true
      case 0x0e:
      case 0x0f: {
        const by = this.fetchSigned8()
        if (vcpu.flags.holds(opcode & 15)) this.jump(vcpu, by)
        return true
      }
      case 0x12: {
        const value = this.readReg(vcpu, low, size)
        this.writeReg(vcpu, low, size, this.readReg(vcpu, EAX, size))
        this.writeReg(vcpu, EAX, size, value)
        return true
      }
      case 0x16:
        this.writeReg(vcpu, low, 1, this.fetch8())
        return true
      case 0x17:
        this.writeReg(vcpu, low, size, this.fetch(size))
        return true
      default:
        return this.unsupported(`opcode 0x${opcode.toString(16)}`)
    }
  }

  private twoBytes(vcpu: Vcpu, opcode: number): boolean {
    const size = this.operandSize
    if (opcode >> 4 === 0x8) {
      const by = this.fetch(this.nearSize)
      if (vcpu.flags.holds(opcode & 15)) this.jump(vcpu, by)
      return true
    }
    switch (opcode) {
      case 0x01: {
        this.modRm(vcpu)
        if (this.isRegister || (this.reg !== 2 && this.reg !== 3)) return this.unsupported("opcode 0x0f 0x01")
        const limit = vcpu.read(this.address, 2)
        // With 16-bit operands, the base has 24 bits.
        const base = vcpu.read(this.address + 2 | 0, 4) & (vcpu.isReal && size === 2 ? 0xff_ffff : -1)
        if (this.reg === 2) {
          vcpu.gdtLimit = limit
          vcpu.gdtBase = base
        } else {
          vcpu.idtLimit = limit
          vcpu.idtBase = base
        }
        return true
      }
      case 0xb6:
      case 0xb7:
        this.modRm(vcpu)
        this.writeReg(vcpu, this.reg, size, this.readRm(vcpu, opcode === 0xb6 ? 1 : 2))
        return true
      case 0xbe:
        this.modRm(vcpu)
        this.writeReg(vcpu, this.reg, size, this.readRm(vcpu, 1) << 24 >> 24)
        return true
      case 0xbf:
        this.modRm(vcpu)
        this.writeReg(vcpu, this.reg, size, this.readRm(vcpu, 2) << 16 >> 16)
        return true
      default:
        return this.unsupported(`opcode 0x0f 0x${opcode.toString(16)}`)
    }
  }

  private arithmetic(vcpu: Vcpu, operation: number, form: number): boolean {
    const width = (form & 1) === 0 ? 1 : this.operandSize
    const isStored = operation !== Alu.Cmp
    if (form >= 4) {
      const immediate = this.fetch(width)
      const result = vcpu.flags.alu(operation, this.readReg(vcpu, EAX, width), immediate, width)
      if (isStored) this.writeReg(vcpu, EAX, width, result)
      return true
    }
    this.modRm(vcpu)
    const inMemory = this.readRm(vcpu, width)
    const inRegister = this.readReg(vcpu, this.reg, width)
    if (form < 2) {
      const result = vcpu.flags.alu(operation, inMemory, inRegister, width)
      if (isStored) this.writeRm(vcpu, width, result)
    } else {
      const result = vcpu.flags.alu(operation, inRegister, inMemory, width)
      if (isStored) this.writeReg(vcpu, this.reg, width, result)
    }
    return true
  }

  private shift(vcpu: Vcpu, width: number, count: number): boolean {
    if (this.reg === 2 || this.reg === 3) return this.unsupported("rotate through carry")
    this.writeRm(vcpu, width, vcpu.flags.shift(this.reg, this.readRm(vcpu, width), count, width))
    return true
  }

  private unary(vcpu: Vcpu, width: number): boolean {
    this.modRm(vcpu)
    switch (this.reg) {
      case 0:
      case 1: {
        const immediate = this.fetch(width)
        vcpu.flags.logic(this.readRm(vcpu, width) & immediate, width)
        return true
      }
      case 2:
        this.writeRm(vcpu, width, ~this.readRm(vcpu, width))
        return true
      case 3:
        this.writeRm(vcpu, width, vcpu.flags.subtract(0, this.readRm(vcpu, width), 0, width))
        return true
      default:
        return this.unsupported("multiplication or division")
    }
  }

  private groupFive(vcpu: Vcpu, width: number): boolean {
    const near = this.nearSize
    this.modRm(vcpu)
    switch (this.reg) {
      case 0:
        this.writeRm(vcpu, width, vcpu.flags.step(this.readRm(vcpu, width), 1, width))
        return true
      case 1:
        this.writeRm(vcpu, width, vcpu.flags.step(this.readRm(vcpu, width), -1, width))
        return true
      case 2: {
        const target = this.readRm(vcpu, near)
        vcpu.push(vcpu.ip, near)
        vcpu.ip = target | 0
        return true
      }
      case 4:
        vcpu.ip = this.readRm(vcpu, near) | 0
        return true
      case 6:
        vcpu.push(this.readRm(vcpu, near), near)
        return true
      default:
        return this.unsupported("far call or jump through memory")
    }
  }

  private portIn(vcpu: Vcpu, port: number, width: number): boolean {
    const value = vcpu.portRead(port, width)
    if (value < 0) return false
    this.writeReg(vcpu, EAX, width, value)
    return true
  }

  private portOut(vcpu: Vcpu, port: number, width: number): boolean {
    return vcpu.portWrite(port, width, this.readReg(vcpu, EAX, width)) >= 0
  }

  /**
   * One element of a string instruction. A repeated one stays at itself until its count is used up, so that each
   * element is an access of its own and an interrupt can come between two.
   */
  private string(vcpu: Vcpu, width: number, element: StringElement): boolean {
    const isRepeated = this.repeat !== 0
    if (isRepeated && vcpu.count(ECX) === 0) return true
    if (!element(vcpu, width, stepOf(vcpu, width), this)) return false
    if (isRepeated) {
      vcpu.advance(ECX, -1)
      if (vcpu.count(ECX) !== 0) vcpu.eip = this.start
    }
    return true
  }

  /** Where a string instruction reads: at DS:SI, if no prefix names another segment. */
  source(vcpu: Vcpu): number {
    return vcpu.linear(this.segmentOr(Segment.Ds), vcpu.registers[ESI]!)
  }

  private segmentOr(segment: number): number {
    return this.segment < 0 ? segment : this.segment
  }

  private modRm(vcpu: Vcpu): void {
    const byte = this.fetch8()
    const mode = byte >> 6
    this.reg = byte >> 3 & 7
    this.rm = byte & 7
    this.isRegister = mode === 3
    if (this.isRegister) return
    if (vcpu.isReal) return this.shortAddress(vcpu, mode)
    let address: number
    if (this.rm === 4) address = this.scaledIndex(vcpu, mode)
    else if (this.rm === 5 && mode === 0) address = this.fetch32()
    else address = vcpu.registers[this.rm]!
    if (mode === 1) address += this.fetchSigned8()
    else if (mode === 2) address += this.fetch32()
    this.offset = address | 0
    this.address = this.offset
  }

  /** The forms of 16-bit addresses: two registers, one, or none, and a displacement. */
  private shortAddress(vcpu: Vcpu, mode: number): void {
    const { registers } = vcpu
    const isAbsolute = this.rm === 6 && mode === 0
    const [first, second] = SHORT_FORMS[this.rm]!
    let offset = isAbsolute ? this.fetch(2) : registers[first]! + (second === undefined ? 0 : registers[second]!)
    if (mode === 1) offset += this.fetchSigned8()
    else if (mode === 2) offset += this.fetch(2)
    this.offset = offset & 0xffff
    const onStack = first === EBP && !isAbsolute
    this.address = vcpu.linear(this.segmentOr(onStack ? Segment.Ss : Segment.Ds), this.offset)
  }

  /** An address that stands in the instruction itself. */
  private fetchAddress(vcpu: Vcpu): number {
    return vcpu.isReal ? vcpu.linear(this.segmentOr(Segment.Ds), this.fetch(2)) : this.fetch32()
  }

  private scaledIndex(vcpu: Vcpu, mode: number): number {
    const byte = this.fetch8()
    const base = byte & 7
    const index = byte >> 3 & 7
    const start = base === 5 && mode === 0 ? this.fetch32() : vcpu.registers[base]!
    return index === 4 ? start : start + (vcpu.registers[index]! << (byte >> 6)) | 0
  }

  private readRm(vcpu: Vcpu, width: number): number {
    return this.isRegister ? this.readReg(vcpu, this.rm, width) : vcpu.read(this.address, width)
  }

  private writeRm(vcpu: Vcpu, width: number, value: number): void {
    if (this.isRegister) this.writeReg(vcpu, this.rm, width, value)
    else vcpu.write(this.address, width, value)
  }

  readReg(vcpu: Vcpu, index: number, width: number): number {
    if (width === 4) return vcpu.registers[index]!
    if (width === 2) return vcpu.registers[index]! & 0xffff
    return index < 4 ? vcpu.registers[index]! & 0xff : vcpu.registers[index - 4]! >> 8 & 0xff
  }

  writeReg(vcpu: Vcpu, index: number, width: number, value: number): void {
    const registers = vcpu.registers
    if (width === 4) registers[index] = value
    else if (width === 2) registers[index] = registers[index]! & ~0xffff | value & 0xffff
    else if (index < 4) registers[index] = registers[index]! & ~0xff | value & 0xff
    else registers[index - 4] = registers[index - 4]! & ~0xff00 | (value & 0xff) << 8
  }

  private jump(vcpu: Vcpu, by: number): void {
    vcpu.ip = vcpu.ip + by | 0
  }

  private fetch8(): number {
    const eip = this.vcpu.eip
    if (eip >>> 12 !== this.codePage) this.enterCodePage(eip)
    this.vcpu.eip = eip + 1 | 0
    return this.code[eip & 0xfff]!
  }

  private fetchSigned8(): number {
    return this.fetch8() << 24 >> 24
  }

  private fetch32(): number {
    return this.fetch8() | this.fetch8() << 8 | this.fetch8() << 16 | this.fetch8() << 24
  }

  private fetch(width: number): number {
    if (width === 1) return this.fetch8()
    if (width === 2) return this.fetch8() | this.fetch8() << 8
    return this.fetch32()
  }

  private enterCodePage(eip: number): void {
    const page = this.vcpu.page(eip)
    if (page === undefined || !page.executable) {
      throw new CannotExecute("Shutdown", `no executable memory at guest address 0x${(eip >>> 0).toString(16)}`)
    }
    this.code = page.bytes
    this.codePage = eip >>> 12
  }

  private unsupported(what: string): never {
    throw new CannotExecute("UnsupportedInstruction", what)
  }
}

/** The registers whose sum a 16-bit address begins with, by the low bits of ModRM. */
const SHORT_FORMS: ReadonlyArray<readonly [first: number, second?: number]> = [
  [EBX, ESI],
  [EBX, EDI],
  [EBP, ESI],
  [EBP, EDI],
  [ESI],
  [EDI],
  [EBP],
  [EBX]
]

/** Moves one element and its pointers; false when it waits for a port. */
type StringElement = (vcpu: Vcpu, width: number, by: number, interpreter: Interpreter) => boolean

/** Where the next element of a string lies: every element is an access of its own, at an address of its own. */
const stepOf = (vcpu: Vcpu, width: number): number => {
  // Guard: xen-60a56dc006
  if (vcpu.isDirectionDown) return -width
  return width
}

const inString: StringElement = (vcpu, width, by) => {
  const value = vcpu.portReadKept(vcpu.registers[EDX]! & 0xffff, width)
  if (value < 0) return false
  vcpu.write(destination(vcpu), width, value)
  vcpu.advance(EDI, by)
  return true
}

const outString: StringElement = (vcpu, width, by, interpreter) => {
  const value = vcpu.read(interpreter.source(vcpu), width)
  if (vcpu.portWrite(vcpu.registers[EDX]! & 0xffff, width, value) < 0) return false
  vcpu.advance(ESI, by)
  return true
}

const moveString: StringElement = (vcpu, width, by, interpreter) => {
  vcpu.write(destination(vcpu), width, vcpu.read(interpreter.source(vcpu), width))
  vcpu.advance(ESI, by)
  vcpu.advance(EDI, by)
  return true
}

const storeString: StringElement = (vcpu, width, by) => {
  vcpu.write(destination(vcpu), width, narrow(vcpu.registers[EAX]!, width))
  vcpu.advance(EDI, by)
  return true
}

const loadString: StringElement = (vcpu, width, by, interpreter) => {
  interpreter.writeReg(vcpu, EAX, width, vcpu.read(interpreter.source(vcpu), width))
  vcpu.advance(ESI, by)
  return true
}

/** Where a string instruction writes: at ES:DI, whatever prefixes say. */
const destination = (vcpu: Vcpu): number => vcpu.linear(Segment.Es, vcpu.registers[EDI]!)
