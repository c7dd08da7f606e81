/**
 * Random straight-line machine code within the simulated vCPU's subset, whose every effect is defined by the processor's
 * manual: an instruction that would read a flag which the one before left undefined is left out.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "Flags Affected".
 */

/** RAM that the code may read and write: 4 KiB. */
export const SCRATCH = 0x8000

/** One instruction to be: which one, and numbers that its operands come from. */
export interface Seed {
  readonly kind: number
  readonly a: number
  readonly b: number
  readonly c: number
  readonly value: number
}

type Flag = "C" | "P" | "Z" | "S" | "O"
export const FLAG_BITS: Readonly<Record<Flag, number>> = { C: 0x1, P: 0x4, Z: 0x40, S: 0x80, O: 0x800 }
const ALL: ReadonlyArray<Flag> = ["C", "P", "Z", "S", "O"]

// EDI and ESP are the program's own.
const FREE_REGISTERS = [0, 1, 2, 3, 5, 6]
const CONDITIONS: ReadonlyArray<ReadonlyArray<Flag>> = [
  ["O"],
  ["C"],
  ["Z"],
  ["C", "Z"],
  ["S"],
  ["P"],
  ["S", "O"],
  ["Z", "S", "O"]
]

const word = (value: number) => [value & 0xff, value >>> 8 & 0xff, value >>> 16 & 0xff, value >>> 24 & 0xff]

/** The code of all seeds, and which flags it leaves defined. */
export const generate = (seeds: ReadonlyArray<Seed>): { readonly bytes: Uint8Array; readonly defined: number } => {
  const bytes: Array<number> = []
  const defined = new Set<Flag>(ALL)
  for (const seed of seeds) one(seed, bytes, defined)
  return { bytes: Uint8Array.from(bytes), defined: [...defined].reduce((sum, flag) => sum | FLAG_BITS[flag], 0) }
}

const one = ({ a, b, c, kind, value }: Seed, out: Array<number>, defined: Set<Flag>): void => {
  const free = (n: number) => FREE_REGISTERS[n % FREE_REGISTERS.length]!
  const width = ([1, 2, 4] as const)[a % 3]!
  const immediate = (bytes: number) => word(value).slice(0, bytes)
  // Byte registers 4 to 7 are the high halves of the first four.
  const register = (n: number, bytes: number) => bytes === 1 ? n % 8 : free(n)
  const set = (flags: ReadonlyArray<Flag>) => flags.forEach((flag) => defined.add(flag))
  const sized = (opcode: number) => [...width === 2 ? [0x66] : [], width === 1 ? opcode : opcode + 1]

  /** The ModRM byte and what follows it, for a register or for one of the ways to reach memory. */
  const place = (reg: number): { readonly setup: Array<number>; readonly operand: Array<number> } => {
    const field = reg << 3
    const at = SCRATCH + 0x100 + c * 3
    switch (b % 5) {
      case 0:
        return { setup: [], operand: [0x05 | field, ...word(at)] }
      case 1: // [esi + disp8]
        return { setup: [0xbe, ...word(at)], operand: [0x46 | field, c & 0xff] }
      case 2: // [disp32 + ebp * scale]
        return {
          setup: [0xbd, ...word(c)],
          operand: [0x04 | field, (c & 3) << 6 | 5 << 3 | 5, ...word(SCRATCH + 0x40)]
        }
      case 3: // [ebp + edx + disp32]
        return {
          setup: [0xbd, ...word(c), 0xba, ...word(at)],
          operand: [0x84 | field, 2 << 3 | 5, ...word(16)]
        }
      default:
        return { setup: [], operand: [0xc0 | field | register(c, width)] }
    }
  }

  switch (kind % 20) {
    case 0: {
      // The eight operations, register with register or memory, in both directions.
      const operation = a >> 2 & 7
      if ((operation === 2 || operation === 3) && !defined.has("C")) return
      const { operand, setup } = place(register(c >> 1, width))
      out.push(...setup, ...sized(operation << 3 | (value & 2)), ...operand)
      return set(ALL)
    }
    case 1: {
      const operation = a >> 2 & 7
      if ((operation === 2 || operation === 3) && !defined.has("C")) return
      const { operand, setup } = place(operation)
      if ((value & 1) === 0 && width !== 1) {
        out.push(...setup, ...width === 2 ? [0x66] : [], 0x83, ...operand, value >>> 8 & 0xff)
      } else out.push(...setup, ...sized(0x80), ...operand, ...immediate(width))
      return set(ALL)
    }
    case 2: {
      const operation = a >> 2 & 7
      if ((operation === 2 || operation === 3) && !defined.has("C")) return
      out.push(...sized(operation << 3 | 4), ...immediate(width))
      return set(ALL)
    }
    case 3: {
      const { operand, setup } = place(register(c >> 1, width))
      out.push(...setup, ...sized(0x84), ...operand)
      return set(ALL)
    }
    case 4: {
      const { operand, setup } = place(value % 3 === 0 ? 0 : value % 3 + 1)
      out.push(...setup, ...sized(0xf6), ...operand, ...value % 3 === 0 ? immediate(width) : [])
      return value % 3 === 1 ? undefined : set(ALL)
    }
    case 5: {
      const { operand, setup } = place(value & 1)
      out.push(...setup, ...sized(0xfe), ...operand)
      return set(["P", "Z", "S", "O"])
    }
    case 6:
      out.push(...width === 2 ? [0x66] : [], (value & 1 ? 0x40 : 0x48) | free(c))
      return set(["P", "Z", "S", "O"])
    case 7: {
      // ROL, ROR, SHL, SHR, SAR, by one, by an immediate or by CL.
      const operation = [0, 1, 4, 5, 7][value % 5]!
      const form = value >>> 4 & 3
      const count = form === 0 ? 1 : value >>> 8 & 0xff
      const { operand, setup } = place(operation)
      if (form === 0) out.push(...setup, ...sized(0xd0), ...operand)
      else if (form === 1) out.push(...setup, 0xb1, count, ...sized(0xd2), ...operand)
      else out.push(...setup, ...sized(0xc0), ...operand, count)
      const by = count & 31
      if (by === 0) return
      if (operation >= 4) set(["P", "Z", "S"])
      if (by === 1) set(["O"])
      else defined.delete("O")
      if (operation >= 4 && operation !== 7 && by > width * 8) defined.delete("C")
      else set(["C"])
      return
    }
    case 8: {
      const { operand, setup } = place(register(c >> 1, width))
      out.push(...setup, ...sized(value & 1 ? 0x88 : 0x8a), ...operand)
      return
    }
    case 9: {
      const { operand, setup } = place(register(c >> 1, width))
      out.push(...setup, ...sized(0x86), ...operand)
      return
    }
    case 10: {
      // MOVZX and MOVSX; the operand's own width is in the opcode.
      const { operand, setup } = place(free(c >> 1))
      const isRegister = b % 5 === 4
      const narrow = value & 1
      const source = isRegister
        ? [0xc0 | free(c >> 1) << 3 | (narrow === 0 ? c % 8 : free(c))]
        : operand
      out.push(...setup, ...value & 4 ? [0x66] : [], 0x0f, (value & 2 ? 0xb6 : 0xbe) | narrow, ...source)
      return
    }
    case 11: {
      const { operand, setup } = place(free(c >> 1))
      if (b % 5 === 4) return
      out.push(...setup, ...width === 2 ? [0x66] : [], 0x8d, ...operand)
      return
    }
    case 12:
      out.push(0x50 | free(a), ...value & 1 ? [0x68, ...word(value), 0x58 | free(c)] : [], 0x58 | free(b))
      return
    case 13:
      if (width === 1) out.push(0xb0 | c & 7, ...immediate(1))
      else out.push(...width === 2 ? [0x66] : [], 0xb8 | free(c), ...immediate(width))
      return
    case 14: {
      // A jump over an increment of ESI.
      const condition = c & 15
      if (!CONDITIONS[condition >> 1]!.every((flag) => defined.has(flag))) return
      if (value & 1) out.push(0x70 | condition, 6, 0x81, 0xee, ...word(value))
      else out.push(0x0f, 0x80 | condition, ...word(6), 0x81, 0xee, ...word(value))
      // Whether the subtraction was done is the same on both, and what it leaves is defined.
      return
    }
    case 15: {
      // LOOPNE, LOOPE, LOOP and JECXZ, over a move.
      const opcode = 0xe0 | c & 3
      if ((c & 3) < 2 && !defined.has("Z")) return
      if (value & 2) out.push(0xb9, ...word(value >>> 2 & 1))
      out.push(opcode, 2, 0xb3, value >>> 8 & 0xff)
      return
    }
    case 16: {
      // String instructions on RAM, up or down, repeated or not.
      const opcode = [0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad][c % 6]!
      const prefixes = [...value & 1 ? [0xf3] : [], ...value & 2 ? [0x66] : []]
      const from = SCRATCH + 0x400 + (value >>> 8 & 0x1ff)
      const to = SCRATCH + 0x800 + (value >>> 17 & 0x1ff)
      const count = value >>> 26
      out.push(0x57, 0xbe, ...word(from), 0xbf, ...word(to), 0xb9, ...word(count))
      out.push(value & 4 ? 0xfd : 0xfc, ...prefixes, opcode, 0xfc)
      // What EDI became is a result too.
      out.push(0x89, 0xfd, 0x5f)
      return
    }
    case 17:
      out.push(value & 1 ? 0xf8 : 0xf9)
      return set(["C"])
    case 18:
      // A call, and a return from it, in each of the forms.
      if (value & 1) out.push(0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3)
      else out.push(0x60, 0xf8 | 1, 0xb8 | free(a), ...word(value), 0x61)
      return value & 1 ? undefined : set(["C"])
    default:
      if (width === 1) out.push(0x90 | free(c))
      else out.push(...width === 2 ? [0x66] : [], 0x90 | free(c))
  }
}
